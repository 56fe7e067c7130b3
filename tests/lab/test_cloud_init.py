"""A cloud image boots and does what its VM's user_data says: real Debian, real cloud-init.

Built from the distribution's packages and booted under translation: a campaign of many minutes.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.testing import cloud_image
from trivet.testing.lab.node import LabNode, until

pytestmark = [pytest.mark.root, pytest.mark.soak]

BOOT_S = 2700
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1234567890abcdefghijklmnopqrstuvwxyzABCDE soak"
TOLD = (
    "TOLD $(cat /root/told) $(hostname)"
    " $(ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4)"
    " $(cat /home/*/.ssh/authorized_keys /root/.ssh/authorized_keys 2>/dev/null | grep -c soak)"
)
USER_DATA = f"""#cloud-config
write_files:
  - path: /root/told
    content: "by-cloud-init"
runcmd:
  - [sh, -c, "echo {TOLD} >/dev/ttyS0"]
"""


@pytest.fixture
def image() -> Iterator[Path]:
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    folder = Path(tempfile.mkdtemp(prefix="tv-cloud-"))
    yield cloud_image.build(folder / "cloud.qcow2", folder)
    shutil.rmtree(folder)


def test_user_data_takes_effect(lab_node: LabNode, image: Path) -> None:
    lab_node.trivet("image", "import", "debian", str(image))
    lab_node.trivet(
        *("vm", "create", "cloud", "--image", "debian", "--memory", "768MiB"),
        *("--network", "default", "--user-data", USER_DATA, "--set", f'ssh_keys=["{KEY}"]'),
    )
    log = ""

    def told() -> bool:
        nonlocal log
        log = lab_node.trivet("vm", "log", "cloud")
        return "TOLD by-cloud-init " in log

    try:
        until("cloud-init has run", told, BOOT_S)
        line = next(text for text in log.splitlines() if text.startswith("TOLD by-cloud-init "))
        _, _, hostname, address, keys = line.split()
        assert hostname == "cloud"
        assert address.startswith("10.77.0.")
        assert address.endswith("/24")
        assert int(keys) >= 1
        until("its agent answers", lambda: '"connected": true' in _shown(lab_node), 120)
    finally:
        lab_node.trivet("vm", "delete", "cloud", "--wait")
        lab_node.trivet("image", "delete", "debian", "--wait")


def _shown(lab_node: LabNode) -> str:
    return lab_node.trivet("vm", "show", "cloud", "-o", "json")
