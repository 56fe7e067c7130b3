"""Real guests without a machine: packets at the far end of a tap, and scratch namespaces.

For suites on the real drivers (root): everything happens in a network namespace of the test's
own, which the calling thread enters and leaves.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import json
import os
import secrets
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from trivet.testing.suites.switch import Damage

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
TAP_FLAGS = 0x0002 | 0x1000 | 0x4000  # tap, no packet information, with virtio-net header
VNET_HEADER = b"\0" * 10
APPEAR_S = 5.0
ABSENT_S = 0.4


@contextmanager
def scratch_namespace() -> Iterator[str]:
    """A fresh network namespace with `lo` up, which this thread is in; removed after."""
    name = f"tvt-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        enter_namespace(there)
        os.close(there)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        enter_namespace(home)
        os.close(home)
        subprocess.run(["ip", "netns", "delete", name], check=False)


def enter_namespace(fd: int) -> None:
    """Move the calling thread into the namespace that `fd` is open on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class TapWire:
    """Guests' ends of persistent taps in this namespace; frames in and out of them."""

    def __init__(self) -> None:
        self._taps: dict[str, int] = {}

    def close(self) -> None:
        """Unplug all guests."""
        for fd in self._taps.values():
            os.close(fd)

    async def reaches(self, source: str, target: str, mac: str) -> bool:
        """Send until it arrives, or (it should not) for a moment once both ends forward."""
        mark = secrets.token_bytes(32)
        frame = frame_to(mac, mark)
        for device in (source, target):
            await self.settled(device)
        limit = time.monotonic() + ABSENT_S
        while time.monotonic() < limit:
            self.send(source, frame)
            if self.heard(target, mark):
                return True
            await asyncio.sleep(0.01)
        return False

    async def identity(self, device: str) -> object:
        """The interface's index."""
        return socket.if_nametoindex(device)

    async def passes(self, source: str, target: str, mac: str) -> int:
        """Send 200 frames at once, and count what comes out within a moment."""
        mark = secrets.token_bytes(32)
        frame = frame_to(mac, mark)
        for device in (source, target):
            await self.settled(device)
        arrived = 0
        for _ in range(200):
            self.send(source, frame.ljust(1000, b"\0"))
            arrived += self.heard(target, mark)
        limit = time.monotonic() + ABSENT_S
        while arrived < 200 and time.monotonic() < limit:
            arrived += self.heard(target, mark)
            await asyncio.sleep(0.001)
        return arrived

    async def damage(self, damage: Damage, vni: int, device: str) -> None:
        """Do it with the tools that an administrator has."""
        if damage is Damage.TAP_GONE:
            self.leave(device)
        commands = {
            Damage.BRIDGE_GONE: f"ip link delete tvbr{vni}",
            Damage.BRIDGE_DOWN: f"ip link set tvbr{vni} down",
            Damage.TUNNEL_GONE: f"ip link delete tvvx{vni}",
            Damage.TUNNEL_DOWN: f"ip link set tvvx{vni} down",
            Damage.TAP_GONE: f"ip link delete {device}",
            Damage.TAP_DOWN: f"ip link set {device} down",
            Damage.TAP_ELSEWHERE: f"ip link set {device} nomaster",
            Damage.BOUNDS_GONE: f"tc qdisc delete dev {device} root",
            Damage.MAC_GONE: f"bridge fdb flush dev {device} master static",
        }
        process = await asyncio.create_subprocess_exec(*commands[damage].split())
        assert await process.wait() == 0, damage

    def leave(self, device: str) -> None:
        """The guest at that tap is no more."""
        if device in self._taps:
            os.close(self._taps.pop(device))

    async def settled(self, device: str) -> None:
        """Open the tap; its port forwards a moment after that, one that is down never."""
        self._tap(device)
        limit = time.monotonic() + APPEAR_S
        while time.monotonic() < limit:
            show = await asyncio.create_subprocess_exec(
                "bridge", "-j", "link", "show", "dev", device, stdout=subprocess.PIPE
            )
            shown, _ = await show.communicate()
            links = json.loads(shown or b"[]")
            if not links or "UP" not in links[0]["flags"] or links[0]["state"] == "forwarding":
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"{device} does not forward after {APPEAR_S} s")

    def _tap(self, device: str) -> int:
        if device not in self._taps:
            self._taps[device] = _open_tap(device)
        return self._taps[device]

    def send(self, device: str, frame: bytes) -> None:
        """The guest at that tap sends a frame; one that is not taken is lost."""
        with suppress(OSError):
            os.write(self._tap(device), VNET_HEADER + frame)

    def heard(self, device: str, mark: bytes) -> bool:
        """Whether something with that mark came to the guest since the last look."""
        return any(mark in frame for frame in self.frames(device))

    def frames(self, device: str) -> Iterator[bytes]:
        """What came to the guest since the last look."""
        while True:
            try:
                yield os.read(self._tap(device), 65536)[len(VNET_HEADER) :]
            except OSError:
                return


def frame_to(mac: str, mark: bytes) -> bytes:
    """A frame of nobody's protocol."""
    return _bytes(mac) + _bytes("02:00:00:00:00:fe") + b"\x88\xb5" + mark


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


class TapGuest:
    """A guest with a network stack: a namespace whose `eth0` is joined to a persistent tap of
    this namespace, frame by frame, as a virtual machine's card would be."""

    def __init__(self, device: str, mac: str) -> None:
        self.namespace = f"tvt-{secrets.token_hex(4)}"
        self._ends: tuple[int, int] | None = None
        self._device = device
        self._mac = mac

    async def plug_in(self) -> None:
        """Make the namespace and join it to the tap."""
        _join_command("ip", "netns", "add", self.namespace)
        near = _open_tap(self._device)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.namespace}", os.O_RDONLY)
        enter_namespace(there)
        try:
            far = _open_tap("eth0")
            for args in (["set", "lo", "up"], ["set", "eth0", "address", self._mac, "up"]):
                _join_command("ip", "link", *args)
        finally:
            enter_namespace(home)
            os.close(home)
            os.close(there)
        self._ends = (near, far)
        loop = asyncio.get_running_loop()
        loop.add_reader(near, _pump, near, far)
        loop.add_reader(far, _pump, far, near)

    async def run(self, *argv: str) -> str:
        """What a command in the guest printed, however it ended."""
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.namespace, *argv,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        out, _ = await process.communicate()
        return out.decode()

    async def unplug(self) -> None:
        """Take the guest away."""
        for fd in self._ends or ():
            asyncio.get_running_loop().remove_reader(fd)
            os.close(fd)
        self._ends = None
        _join_command("ip", "netns", "delete", self.namespace)


def _join_command(*argv: str) -> None:
    subprocess.run(argv, check=True)


def _open_tap(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_FLAGS))
    return fd


def _pump(source: int, target: int) -> None:
    # A frame that the other end won't take (it is down) is lost, as on any wire.
    with suppress(OSError):
        os.write(target, os.read(source, 66000))
