"""Settings: file, environment, and refusals that name the nearest key."""

from pathlib import Path

import pytest

from trivet.contracts.errors import Fatal
from trivet.runtime.settings import load_settings


def write(folder: Path, text: str) -> dict[str, str]:
    path = folder / "trivet.toml"
    path.write_text(text)
    return {"TRIVET_SETTINGS": str(path)}


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    env = write(tmp_path, 'node = "n1"\n[compute]\nhypervisor = "libvirt"\nlook_s = 5\n')
    env |= {"TRIVET_COMPUTE__HYPERVISOR": "fake", "TRIVET_URL": "https://not-a-setting"}
    settings = load_settings(env)
    assert (settings.node, settings.compute.hypervisor, settings.compute.look_s) == (
        "n1",
        "fake",
        5,
    )


def test_a_missing_file_means_defaults(tmp_path: Path) -> None:
    assert load_settings({"TRIVET_SETTINGS": str(tmp_path / "none")}).prefix == "tv"


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("nod = 'n1'", "nod", "did you mean node?"),
        ("[compute]\nhypervizor = 'x'", "compute.hypervizor", "did you mean hypervisor?"),
        ("[gateway]\nport = 0", "gateway.port", "greater than or equal to 1"),
        ("node = 'A B'", "node", "pattern"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, where: str, hint: str) -> None:
    with pytest.raises(Fatal) as fatal:
        load_settings(write(tmp_path, text))
    assert where in fatal.value.detail
    assert hint in (fatal.value.hint or "")


def test_an_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match="can't be read"):
        load_settings(write(tmp_path, "node = "))
