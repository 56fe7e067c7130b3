"""The description of a node's libvirtd: all of its folders are ours."""

from pathlib import Path

import pytest

from trivet.host.libvirtd import RUN_FOLDER, STATE_FOLDERS, describe, qemu_config

STATE, RUN = Path("/srv/state"), Path("/srv/run")


def test_each_of_libvirts_folders_is_covered_before_it_runs() -> None:
    described = describe(STATE, RUN, "11111111-2222-3333-4444-555555555555")
    script = described.argv[-1]
    assert described.argv[:4] == ("unshare", "--mount", "--propagation", "slave")
    for target in (*STATE_FOLDERS, RUN_FOLDER):
        assert f" {target};" in script.split("exec libvirtd")[0]
    assert all(f.is_relative_to(STATE) or f == RUN for f in described.folders)
    assert all(path.parent in described.folders for path in described.files)
    assert described.uri.endswith("?socket=/srv/run/libvirt-sock")


def test_only_root_of_this_machine_is_served() -> None:
    described = describe(STATE, RUN, "11111111-2222-3333-4444-555555555555")
    config = described.files[STATE / "etc/libvirtd.conf"]
    assert "listen_tcp = 0\n" in config
    assert 'unix_sock_rw_perms = "0700"\n' in config
    assert 'host_uuid = "11111111-2222-3333-4444-555555555555"\n' in config


@pytest.mark.parametrize(
    ("cgroups", "line"),
    [(False, "cgroup_controllers = []\n"), (True, 'cgroup_controllers = ["cpu"]\n')],
)
def test_cgroups_are_used_only_where_they_are_ours(cgroups: bool, line: str) -> None:
    assert line in qemu_config(cgroups)
