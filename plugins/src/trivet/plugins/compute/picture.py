"""Turns a screen's picture as QEMU tells it (PPM) into a PNG. Pure."""

from __future__ import annotations

import re
import struct
import zlib

from trivet.contracts.errors import DRIVER_FAILED, Fatal

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PPM = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d{1,5})\s+(\d{1,5})\s+255\s", re.ASCII)
_LEVEL = 6


def png_of(picture: bytes) -> bytes:
    """The PNG of a binary PPM (8 bit RGB); a PNG is returned as it is. Raises `Fatal`."""
    if picture.startswith(PNG_MAGIC):
        return picture
    head = _PPM.match(picture)
    if head is None:
        raise Fatal(DRIVER_FAILED, "the hypervisor's picture is neither PPM nor PNG")
    width, height = int(head[1]), int(head[2])
    pixels = picture[head.end() :]
    row_bytes = 3 * width
    if not width or not height or len(pixels) != row_bytes * height:
        raise Fatal(DRIVER_FAILED, f"the hypervisor's picture of {width}x{height} is cut short")
    # Each row begins with the number of its filter: 0, none.
    rows = (b"\0" + pixels[at : at + row_bytes] for at in range(0, len(pixels), row_bytes))
    return b"".join(
        (
            PNG_MAGIC,
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(b"".join(rows), _LEVEL)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
