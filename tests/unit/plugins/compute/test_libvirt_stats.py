"""libvirt's flat table of counters in our words."""

from trivet.plugins.compute.libvirt_stats import guest_stats

TOLD = {
    "cpu.time": 7,
    "vcpu.current": 2,
    "balloon.current": 1024,
    "balloon.rss": 900,
    "balloon.unused": 100,
    "balloon.usable": 200,
    "block.count": 2,
    "block.0.name": "vda",
    "block.0.rd.bytes": 1,
    "block.0.rd.reqs": 2,
    "block.0.wr.bytes": 3,
    "block.0.wr.reqs": 4,
    "block.1.name": "sda",
    "net.count": 1,
    "net.0.rx.bytes": 5,
    "net.0.rx.pkts": 6,
    "net.0.tx.bytes": 8,
    "net.0.tx.pkts": 9,
}


def test_every_counter_finds_its_place_and_foreign_disks_are_left_out() -> None:
    found = guest_stats(TOLD, {"vda": "root"}, ("02:00:00:00:00:01",))
    assert (found.cpu_ns, found.vcpus, found.memory_kib) == (7, 2, 1024)
    assert (found.host_memory_kib, found.unused_kib, found.available_kib) == (900, 100, 200)
    (disk,), (nic,) = found.disks, found.nics
    assert tuple(disk.model_dump().values()) == ("root", 1, 2, 3, 4)
    assert tuple(nic.model_dump().values()) == ("02:00:00:00:00:01", 8, 9, 5, 6)


def test_what_is_not_told_is_not_made_up() -> None:
    found = guest_stats({}, {}, ())
    assert found.unused_kib is None
    assert found.disks == found.nics == ()
