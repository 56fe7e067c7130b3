"""Where an instance keeps things, and what it may call its own."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trivet.host.layout import Layout


def test_the_ordinary_instance_is_in_the_usual_places():
    layout = Layout()
    assert layout.settings_file == Path("/etc/trivet/trivet.toml")
    assert layout.state == Path("/var/lib/trivet")
    assert layout.prefix == "tv"


@given(st.text("abcdefghij/", min_size=1, max_size=20))
def test_an_instance_with_a_root_has_its_own_prefix(text):
    layout = Layout(Path("/tmp") / text.strip("/"))
    assert len(layout.prefix) == 3
    assert layout.prefix.isalpha()
    assert not layout.prefix.startswith("tv")
    assert not layout.owns("/var/lib/trivet/keys")


def test_it_owns_what_is_in_its_folders_and_nothing_that_only_looks_so():
    layout = Layout()
    assert layout.owns("/var/lib/trivet")
    assert layout.owns("/run/trivet/gw/dnsmasq.pid")
    assert not layout.owns("/var/lib/trivet-other/x")
    assert not layout.owns("/var/lib")


def test_every_path_is_in_a_folder_that_purge_removes():
    layout = Layout(Path("/srv/t"))
    names = ("settings_file", "keys", "tls", "token_file", "bus_data", "made_file", "processes",
             "status_file", "venv", "bus_config")  # fmt: skip
    for name in names:
        assert layout.owns(getattr(layout, name)), name
