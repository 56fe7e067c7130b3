"""Writes seeds as ISO 9660 images, which every cloud image can read, and keeps their files.

A file is put in place whole: a running guest keeps the one that it was started with.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from trivet.contracts.compute.seed import LABEL, Seed


def iso_of(seed: Seed) -> bytes:
    """The image: the seed's files in the root, under their own names by Rock Ridge and Joliet."""
    import pycdlib  # late: it is large, and seldom needed

    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    for number, (name, data) in enumerate(sorted(seed.files.items())):
        iso.add_fp(
            io.BytesIO(data),
            len(data),
            f"/F{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
            file_mode=0o100400,
        )
    out = io.BytesIO()
    iso.write_fp(out)
    iso.close()
    return out.getvalue()


def put(path: Path, seed: Seed | None) -> None:
    """Have the seed's image at `path`, readable by its owner alone; None: have none there."""
    if seed is None:
        path.unlink(missing_ok=True)
        return
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(iso_of(seed))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
