"""No image that names another file, or is something else, passes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Refused
from trivet.plugins.compute.image_safety import check_info, format_of


def qcow2(
    version: int = 3,
    backing: int = 0,
    backing_size: int = 0,
    crypt: int = 0,
    features: int = 0,
    extensions: bytes = bytes(8),
) -> bytes:
    def word(value: int, length: int = 4) -> bytes:
        return value.to_bytes(length, "big")

    header = b"QFI\xfb" + word(version) + word(backing, 8) + word(backing_size) + word(16)
    header += word(1 << 30, 8) + word(crypt)
    header = header.ljust(72, b"\0") + word(features, 8)
    return header.ljust(100, b"\0") + word(104) + extensions


def extension(kind: int, data: bytes) -> bytes:
    padded = data + bytes(-len(data) % 8)
    return kind.to_bytes(4, "big") + len(data).to_bytes(4, "big") + padded


END = bytes(8)
FEATURE_NAMES = extension(0x6803F857, b"x" * 48)

GOOD = [
    (b"", "raw"),
    (b"\xeb\x63\x90" + bytes(600), "raw"),
    (qcow2(), "qcow2"),
    (qcow2(version=2), "qcow2"),
    (qcow2(extensions=FEATURE_NAMES + END), "qcow2"),
    (qcow2(features=0b11001), "qcow2"),
]
BAD = [
    (qcow2(backing=1024, backing_size=11), "backing file"),
    (qcow2(backing_size=11), "backing file"),
    (qcow2(crypt=2), "encrypted"),
    (qcow2(features=4), "data file"),
    (qcow2(features=1 << 20), "unknown features"),
    (qcow2(extensions=FEATURE_NAMES + extension(0x44415441, b"/etc/shadow") + END), "data file"),
    (qcow2(extensions=extension(0xE2792ACA, b"raw") + END), "backing file"),
    (qcow2(extensions=extension(0x6803F857, b"") * 8000), "no end"),
    (qcow2(version=1), "version 1"),
    (b"QFI\xfb" + bytes(20), "cut short"),
    (b"KDMV" + bytes(600), "vmdk"),
    (b"# Disk DescriptorFile\nRW 1 FLAT /etc/shadow", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"LUKS\xba\xbe", "luks"),
    (b"\x1f\x8b\x08", "gzip"),
]


@pytest.mark.parametrize(("header", "format_"), GOOD)
def test_images_that_stand_alone_pass(header: bytes, format_: str) -> None:
    assert format_of(header) == format_


@pytest.mark.parametrize(("header", "why"), BAD)
def test_all_others_are_refused(header: bytes, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        format_of(header)
    assert refused.value.hint is not None


@given(st.binary(max_size=300))
def test_garbage_is_raw_or_refused(rest: bytes) -> None:
    assert format_of(b"\0" + rest) == "raw"
    with contextlib.suppress(Refused):
        assert format_of(b"QFI\xfb" + rest) == "qcow2"


@pytest.mark.parametrize(
    "told",
    [
        {"format": "vmdk"},
        {"backing-filename": "/etc/shadow"},
        {"full-backing-filename": "/etc/shadow"},
        {"encrypted": True},
        {"virtual-size": 0},
        {"virtual-size": "many"},
        {"format-specific": {"data": {"data-file": "/etc/shadow"}}},
        {"format-specific": {"data": {"corrupt": True}}},
    ],
)
def test_what_qemu_says_is_looked_at_too(told: dict[str, object]) -> None:
    good: dict[str, object] = {"format": "qcow2", "virtual-size": 1024, "format-specific": {}}
    assert check_info(good, "qcow2") == 1024
    with pytest.raises(Refused):
        check_info({**good, **told}, "qcow2")
