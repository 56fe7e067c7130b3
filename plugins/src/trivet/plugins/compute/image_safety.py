"""Decides whether an image that a stranger made may be opened here at all.

An image can name other files: a qcow2's backing file or data file would be read from this host
and end up in the guest. So the header is first read here, byte by byte, and an image that names
any file, is encrypted, or is of a format other than raw and qcow2 is refused before any
program opens it; then the same is asked of what QEMU says of it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trivet.contracts.errors import INVALID, Refused

ACCEPTED = "raw or qcow2, without a backing file, data file or encryption"
HEADER_BYTES = 64 * 1024

_OTHERS = {
    b"KDMV": "vmdk",
    b"COWD": "vmdk",
    b"# Disk DescriptorFile": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vhd",
    b"<<< Oracle VM": "vdi",
    b"<<< QEMU VM": "vdi",
    b"QED\0": "qed",
    b"LUKS\xba\xbe": "luks",
    b"WithoutFreeSpace": "parallels",
    b"WithouFreSpacExt": "parallels",
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
}
_QCOW_MAGIC = b"QFI\xfb"
_KNOWN_INCOMPATIBLE = {0: "dirty", 1: "corrupt", 3: "compression", 4: "extended L2"}
_EXTERNAL_DATA_BIT = 1 << 2
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_DATA_FILE = 0x44415441


def format_of(header: bytes) -> str:
    """`raw` or `qcow2`, by the first bytes of an image. Raises `Refused` for all that is not
    a self-contained image of one of these."""
    for magic, name in _OTHERS.items():
        if header.startswith(magic):
            raise _refused(f"it is {name}")
    if not header.startswith(_QCOW_MAGIC):
        return "raw"
    if len(header) < 72:
        raise _refused("its qcow2 header is cut short")
    if (version := _number(header, 4, 4)) not in (2, 3):
        raise _refused(f"it is qcow version {version}")
    if _number(header, 8, 8) or _number(header, 16, 4):
        raise _refused("it names a backing file")
    if _number(header, 32, 4):
        raise _refused("it is encrypted")
    if version == 3:
        _check_version_3(header)
    return "qcow2"


def check_info(info: Mapping[str, object], format_: str) -> int:
    """What `qemu-img info --output=json` said of an image that `format_of` let pass; looks
    for the same dangers again, as QEMU sees them. Returns the virtual size in bytes."""
    if info.get("format") != format_:
        raise _refused(f"it is {info.get('format')}, not {format_}")
    specific: Any = info.get("format-specific") or {}
    data = specific.get("data") or {}
    for key in ("backing-filename", "full-backing-filename", "backing-filename-format"):
        if info.get(key):
            raise _refused("it names a backing file")
    if data.get("data-file") or data.get("data-file-raw"):
        raise _refused("it names a data file")
    if info.get("encrypted") or data.get("encrypt"):
        raise _refused("it is encrypted")
    if data.get("corrupt"):
        raise _refused("it is marked as corrupt")
    size = info.get("virtual-size")
    if not isinstance(size, int) or size <= 0:
        raise _refused("it has no size")
    return size


def _check_version_3(header: bytes) -> None:
    """Feature bits and header extensions, which version 2 does not have."""
    features = _number(header, 72, 8)
    if features & _EXTERNAL_DATA_BIT:
        raise _refused("it names a data file")
    if unknown := features & ~sum(1 << bit for bit in _KNOWN_INCOMPATIBLE):
        raise _refused(f"it uses unknown features ({unknown:#x})")
    at = _number(header, 100, 4)
    while at + 8 <= len(header):
        kind, length = _number(header, at, 4), _number(header, at + 4, 4)
        if kind == 0:
            return
        if kind == _EXTENSION_DATA_FILE:
            raise _refused("it names a data file")
        if kind == _EXTENSION_BACKING_FORMAT:
            raise _refused("it names the format of a backing file")
        at += 8 + (length + 7) // 8 * 8
    raise _refused("its header extensions have no end")


def _refused(why: str) -> Refused:
    return Refused(INVALID, f"the image can't be imported: {why}", hint=f"accepted: {ACCEPTED}")


def _number(header: bytes, at: int, length: int) -> int:
    return int.from_bytes(header[at : at + length], "big")
