"""The libraries of the guest agent are read from what ldd says."""

from pathlib import Path

import pytest

from trivet.host.tiny_agent import libraries

TOLD = """\tlinux-vdso.so.1 (0x00007f54a6ef2000)
\tlibudev.so.1 => /lib/x86_64-linux-gnu/libudev.so.1 (0x00007f54a6dbb000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f54a69a5000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f54a6ef4000)
"""


def test_libraries() -> None:
    lib = Path("/lib/x86_64-linux-gnu")
    loader = Path("/lib64/ld-linux-x86-64.so.2")
    assert libraries(TOLD) == (lib / "libudev.so.1", lib / "libc.so.6", loader)


def test_one_that_is_missing_is_named() -> None:
    with pytest.raises(LookupError, match=r"libglib-2\.0\.so\.0 is not installed"):
        libraries(TOLD + "\tlibglib-2.0.so.0 => not found\n")
