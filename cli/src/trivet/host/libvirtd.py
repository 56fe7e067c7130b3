"""Describes the libvirtd of a node: its files, and the command line that runs it.

Trivet's guests get a libvirtd of their own, so that the machine's own libvirt, if it has one, is
left alone and `down` finds all that is ours. libvirt's folders are fixed when it is built;
so it runs in a mount namespace where they are Trivet's. This module only says what to write and
what to run: whoever supervises processes does it. Ended or killed, libvirtd leaves its guests
running and finds them again when it is started anew by the same description.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

# Libvirt's folders, and the part of ours that takes each one's place.
STATE_FOLDERS = {
    "/etc/libvirt": "etc",
    "/var/lib/libvirt": "lib",
    "/var/cache/libvirt": "cache",
    "/var/log/libvirt": "log",
}
RUN_FOLDER = "/run/libvirt"


@dataclass(frozen=True)
class Libvirtd:
    """One libvirtd: `folders` to make (0700), `files` to write, `argv` to run as root in the
    foreground. It answers at `socket` once that exists; `uri` is what clients open."""

    folders: tuple[Path, ...]
    files: dict[Path, str]
    argv: tuple[str, ...]
    socket: Path
    uri: str


def describe(
    state_dir: Path,
    run_dir: Path,
    host_uuid: str,
    cgroups: bool = False,
    hide: tuple[Path, ...] = (),
) -> Libvirtd:
    """The libvirtd that keeps its state in `state_dir` and its sockets in `run_dir`.

    `host_uuid` must differ from node to node. With `cgroups`, guests get cgroups of their own,
    which CPU shares and limits need. `hide` are mounts that it is not to see.
    """
    state = {target: state_dir / name for target, name in STATE_FOLDERS.items()}
    config = state["/etc/libvirt"]
    socket = run_dir / "libvirt-sock"
    return Libvirtd(
        folders=(*state.values(), run_dir),
        files={
            config / "libvirtd.conf": daemon_config(host_uuid),
            config / "qemu.conf": qemu_config(cgroups),
        },
        argv=_argv({**state, RUN_FOLDER: run_dir}, hide),
        socket=socket,
        uri=f"qemu+unix:///system?socket={socket}",
    )


def daemon_config(host_uuid: str) -> str:
    """libvirtd.conf: root on this machine only, through the unix socket."""
    return _lines(
        listen_tls=0,
        listen_tcp=0,
        auth_unix_rw="none",
        auth_unix_ro="none",
        unix_sock_group="root",
        unix_sock_rw_perms="0700",
        unix_sock_ro_perms="0700",
        unix_sock_admin_perms="0700",
        host_uuid=host_uuid,
    )


def qemu_config(cgroups: bool) -> str:
    """qemu.conf: no virtlogd, no per-guest namespaces, no changes of owners.

    Guests run as root, since the sockets of their disks and their devices belong to it.
    """
    return _lines(
        security_driver="none",
        user="root",
        group="root",
        swtpm_user="root",
        swtpm_group="root",
        dynamic_ownership=0,
        remember_owner=0,
        namespaces=[],
        cgroup_controllers=["cpu"] if cgroups else [],
        stdio_handler="file",
        max_core=0,
    )


def _argv(binds: dict[str, Path], hide: tuple[Path, ...]) -> tuple[str, ...]:
    """Put each folder over libvirt's in a mount namespace of our own, then become libvirtd.

    What the machine mounts later is seen inside (slave), what is mounted inside is not seen
    outside, and all of it is gone when the last guest and libvirtd are.
    """
    steps = [
        f"mkdir -p {shlex.quote(target)}; mount --bind {shlex.quote(str(ours))} {target}"
        for target, ours in binds.items()
    ]
    steps += [f"umount {shlex.quote(str(mount))} || true" for mount in hide]
    script = "; ".join([*steps, f"exec libvirtd -p {RUN_FOLDER}/libvirtd.pid"])
    return ("unshare", "--mount", "--propagation", "slave", "--", "/bin/sh", "-ec", script)


def _lines(**settings: str | int | list[str]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in settings.items())


def _value(value: str | int | list[str]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{value}"'
    return "[" + ", ".join(f'"{item}"' for item in value) + "]"
