"""The guests' cgroup on machines of both generations, and on such that have none."""

from pathlib import Path

import pytest

from trivet.plugins.compute import cpu_groups

BASE = Path("sys/fs/cgroup")
FIRST = ("cpu.shares", "cpu.cfs_quota_us")
SECOND = ("cpu.weight", "cpu.max")


def machine(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / BASE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def kernel_fills(root: Path, folder: str, names: tuple[str, ...]) -> None:
    """What the kernel puts into a new group."""
    machine(root, {f"{folder}/{name}": "" for name in names})


def test_first_generation(tmp_path: Path) -> None:
    machine(tmp_path, {"cpu/tasks": "", "unified/cgroup.controllers": "hugetlb\n"})
    group = cpu_groups.group_of("tv", tmp_path)
    assert group is not None
    assert not group.works
    kernel_fills(tmp_path, "cpu/tv.partition", FIRST)
    assert cpu_groups.make("tv", 4, tmp_path) is None
    assert group.works
    assert (group.folder / "cpu.shares").read_text() == "8192"
    assert cpu_groups.idle_unified(tmp_path) == tmp_path / BASE / "unified"


def test_second_generation(tmp_path: Path) -> None:
    machine(tmp_path, {"cgroup.controllers": "cpuset cpu io\n", "cgroup.subtree_control": ""})
    kernel_fills(tmp_path, "tv.partition", SECOND)
    assert cpu_groups.make("tv", 300, tmp_path) is None
    assert (tmp_path / BASE / "cgroup.subtree_control").read_text() == "+cpu"
    assert (tmp_path / BASE / "tv.partition/cpu.weight").read_text() == "10000"
    assert cpu_groups.idle_unified(tmp_path) is None


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "offers no cgroup controller"),
        ({"cgroup.controllers": "memory pids"}, "offers no cgroup controller"),
        ({"cgroup.controllers": "cpu", "cgroup.subtree_control": ""}, "has no controller"),
        ({"cgroup.controllers": "cpu", "cgroup.subtree_control/x": ""}, "can't be made"),
    ],
)
def test_where_it_can_not_be(tmp_path: Path, files: dict[str, str], why: str) -> None:
    machine(tmp_path, files)
    assert why in (cpu_groups.make("tv", 2, tmp_path) or "")


def test_what_a_killed_libvirt_left_is_removed(tmp_path: Path) -> None:
    machine(tmp_path, {"cpu/tasks": ""})
    group = tmp_path / BASE / "cpu/tv.partition"
    for name in ("qemu-3-tv-vm-1.libvirt-qemu", "qemu-4-tv-vm-10.libvirt-qemu"):
        (group / name / "vcpu0").mkdir(parents=True)
    cpu_groups.forget("tv", "tv-vm-1", tmp_path)
    assert [path.name for path in group.iterdir()] == ["qemu-4-tv-vm-10.libvirt-qemu"]
    cpu_groups.remove("tv", tmp_path)
    assert not group.exists()
    cpu_groups.remove("tv", tmp_path)
    cpu_groups.forget("tv", "tv-vm-1", tmp_path)
