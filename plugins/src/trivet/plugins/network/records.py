"""Small JSON files beside the things they describe, replaced whole and on disk when written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.model import Model

ModelT = TypeVar("ModelT", bound=Model)


def write_record(path: Path, record: Model) -> None:
    """Replace the file; after a crash there is the old or the new one, whole."""
    write_file(path, record.model_dump_json())


def write_file(path: Path, text: str) -> None:
    """Replace a file by `text`, durably."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def read_record(path: Path, model: type[ModelT]) -> ModelT | None:
    """The record, or None where there is none; one that can't be read is `Fatal`."""
    try:
        return model.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise Fatal(
            DRIVER_FAILED, f"{path} can't be read: {error}", hint="move it away; it is made anew"
        ) from error
