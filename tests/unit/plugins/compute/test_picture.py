"""A picture keeps every pixel on its way from PPM to PNG."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Fatal
from trivet.plugins.compute.picture import PNG_MAGIC, png_of


def pixels_of(png: bytes) -> tuple[int, int, bytes]:
    """Width, height and pixels of an unfiltered PNG, checksums checked."""
    assert png.startswith(PNG_MAGIC)
    at, data, size = 8, b"", (0, 0)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(
            kind + body
        )
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    width, height = size
    rows = zlib.decompress(data)
    step = 1 + 3 * width
    assert len(rows) == step * height
    return width, height, b"".join(rows[i + 1 : i + step] for i in range(0, len(rows), step))


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_every_pixel_is_kept(width: int, height: int, data: st.DataObject) -> None:
    pixels = data.draw(st.binary(min_size=3 * width * height, max_size=3 * width * height))
    head = data.draw(st.sampled_from([b"P6\n%d %d\n255\n", b"P6 # of QEMU\n%d\n%d 255\n"]))
    png = png_of(head % (width, height) + pixels)
    assert pixels_of(png) == (width, height, pixels)
    assert png_of(png) == png


@pytest.mark.parametrize(
    "picture", [b"", b"GIF89a", b"P6\n2 2\n255\n12345678901", b"P6\n0 0\n255\n", b"P5\n1 1\n255\nx"]
)
def test_what_is_no_picture_is_told(picture: bytes) -> None:
    with pytest.raises(Fatal):
        png_of(picture)
