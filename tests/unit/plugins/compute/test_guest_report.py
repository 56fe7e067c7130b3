"""What a guest says of itself is bounded and parsed, whatever it says."""

from hypothesis import given
from hypothesis import strategies as st

from trivet.plugins.compute.libvirt_agent import ADDRESSES_MAX, report_of

TOLD = {
    "hostname": "web-1",
    "if.count": 2,
    "if.0.name": "lo",
    "if.0.addr.count": 1,
    "if.0.addr.0.type": "ipv4",
    "if.0.addr.0.addr": "127.0.0.1",
    "if.1.name": "eth0",
    "if.1.hwaddr": "a6:f9:4f:8d:dd:ee",
    "if.1.addr.count": 3,
    "if.1.addr.0.addr": "10.77.0.2",
    "if.1.addr.1.addr": "fda5::2",
    "if.1.addr.2.addr": "fe80::a4f9:4fff:fe8d:ddee%eth0",
}


def test_the_guests_own_name_and_addresses() -> None:
    report = report_of(TOLD)
    assert report.hostname == "web-1"
    assert report.addresses == ("10.77.0.2", "fda5::2")


def test_nothing_said_is_nothing_known() -> None:
    assert report_of({}).model_dump() == {"hostname": None, "addresses": ()}
    for name in ("", "x" * 256, "a\x1b[2Jb", 7):
        assert report_of({"hostname": name}).hostname is None


KEYS = st.builds("if.{}.addr.{}.addr".format, st.integers(0, 20), st.integers(0, 10))


@given(st.dictionaries(KEYS, st.text() | st.integers()))
def test_whatever_it_says_is_bounded(told: dict[str, object]) -> None:
    assert len(report_of(told).addresses) <= ADDRESSES_MAX
