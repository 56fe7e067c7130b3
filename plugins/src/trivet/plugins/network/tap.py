"""Taps: the network cards' ends on the node, made persistent so that they outlive a guest.

A tap belongs to root alone and to one queue; QEMU, or a test, opens it by its name. Making one
that is there already opens and leaves it, so that a running guest stays connected.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from trivet.contracts.errors import DRIVER_FAILED, IN_USE, Fatal, Refused

TUNSETIFF = 0x400454CA
TUNSETPERSIST = 0x400454CB
TUNSETOWNER = 0x400454CC
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000


def open_tap(name: str, *, vnet_hdr: bool = True) -> int:
    """A file descriptor of the tap `name`, made if it is not there. One holder at a time:
    `Refused(IN_USE)` while another (a guest) has it open."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = IFF_TAP | IFF_NO_PI | (IFF_VNET_HDR if vnet_hdr else 0)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EBUSY:
            raise Refused(IN_USE, f"tap {name} is open in another process") from error
        raise Fatal(DRIVER_FAILED, f"tap {name}: {error}") from error
    return fd


def make_tap(name: str) -> None:
    """Make the persistent tap `name`, owned by root."""
    fd = open_tap(name)
    try:
        fcntl.ioctl(fd, TUNSETOWNER, 0)
        fcntl.ioctl(fd, TUNSETPERSIST, 1)
    except OSError as error:
        raise Fatal(DRIVER_FAILED, f"tap {name}: {error}") from error
    finally:
        os.close(fd)
