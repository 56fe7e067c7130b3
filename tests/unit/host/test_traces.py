"""What of a machine is ours: by prefix and folder, never by resemblance."""

import sys
from pathlib import Path

import pytest

from trivet.host import processes, traces
from trivet.host.layout import Layout
from trivet.host.traces import Traces

EMPTY = Traces(*[frozenset()] * 9)


def seen(**kinds):
    return Traces(**{k: frozenset(kinds.get(k, ())) for k in Traces.__annotations__})


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("tvbr5001", True),
        ("tvvx5001", True),
        ("tvp0a1b2c3d4e", True),
        ("tv-gw-5", False),
        ("tvserver", False),
        ("eth0", False),
        ("tv", False),
    ],
)
def test_links_are_ours_by_prefix_kind_and_digits(name, ours):
    assert traces.is_our_link("tv", name) is ours


def test_what_is_ours_is_told_by_kind():
    machine = seen(
        namespaces={"tv-gw-1", "cni-1"},
        mounts={"/", "/var/lib/trivet/pools/p", "/var/lib/trivetx"},
        loops={"/var/lib/trivet/pool.img", "/srv/a/disk.img"},
        tables={"inet tv_firewall", "inet filter", "ip tvnot"},
        links={"eth0", "tvbr7"},
    )
    assert traces.ours(Layout(), machine) == {
        "namespaces": ["tv-gw-1"],
        "mounts": ["/var/lib/trivet/pools/p"],
        "loops": ["/var/lib/trivet/pool.img"],
        "tables": ["inet tv_firewall"],
        "links": ["tvbr7"],
    }
    assert traces.ours(Layout(Path("/srv/t")), machine) == {}


def test_a_difference_names_what_came_and_what_went():
    before = seen(links={"eth0"}, processes={"1 init", "7 sh"}, users={"root"})
    after = seen(links={"eth0", "tvbr7"}, processes={"1 init", "9 top"})
    assert traces.added(before, after) == {"links": ["tvbr7"], "processes": ["9 top"]}
    assert traces.lost(before, after) == {"users": ["root"]}
    assert traces.added(before, before) == {}


def test_a_snapshot_of_this_machine_sees_this_process():
    now = traces.snapshot(Layout(Path("/nonexistent")))
    assert any(p.startswith(f"{processes.os.getpid()} ") for p in now.processes)
    assert "lo" in now.links
    assert "/" in now.mounts
    assert now.files == frozenset()


def test_an_engine_is_ours_by_our_path_on_its_command_line(monkeypatch):
    layout = Layout()

    def is_ours(program, *argv, environment=()):
        monkeypatch.setattr(traces, "program", lambda pid: program)
        monkeypatch.setattr(traces, "arguments", lambda pid: list(argv))
        monkeypatch.setattr(traces, "environment", lambda pid: list(environment))
        monkeypatch.setattr(traces, "in_our_root", lambda pid: True)
        return traces.engine_of(layout, 4) is not None

    qemu = "/usr/bin/qemu-system-x86_64"
    assert is_ours(qemu, "qemu", "-blockdev", '{"path":"/run/trivet/vol.sock"}')
    assert is_ours("/usr/sbin/dnsmasq", "dnsmasq", "--conf-file=/run/trivet/gw/1.conf")
    assert not is_ours(qemu, "qemu", "-drive", "file=/srv/t/run/trivet/x")
    assert not is_ours(qemu, "qemu", "-drive", "file=/run/trivet-backup/x")
    assert not is_ours("/usr/bin/vim", "vim", "/etc/trivet/trivet.toml")
    assert not is_ours("/usr/sbin/libvirtd", "libvirtd", "-p", "/run/libvirt/libvirtd.pid")
    assert is_ours("/usr/sbin/libvirtd", "libvirtd", "-p", "/run/libvirt/libvirtd.pid",
                   environment=["TRIVET_SETTINGS=/etc/trivet/trivet.toml"])  # fmt: skip
    assert is_ours(sys.executable, "/opt/trivet/venv/bin/python", "-m", "trivet.compute")
