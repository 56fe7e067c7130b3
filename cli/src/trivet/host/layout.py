"""Where an instance of Trivet keeps everything: one value, from which all paths follow.

An instance is what one `trivet up` makes on one machine. The ordinary one lives in the usual
places of a Linux system; one with a root folder (`--root`, `TRIVET_ROOT`) has the same tree under
that folder, its own ports, and its own prefix of names, so that tests can have it beside another.
This module computes only; `purge` trusts it to name everything that is Trivet's to remove.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("security", "storage", "network", "compute", "gateway")
USER = "trivet"
LIBVIRT_USER = "libvirt-qemu"
"""Debian's libvirtd does not start without this user, also where its guests run as another; the
package that makes it would also start a libvirtd of its own."""


@dataclass(frozen=True)
class Layout:
    """The paths of the instance under `root`."""

    root: Path = Path("/")

    @property
    def ordinary(self) -> bool:
        """Whether this is the machine's own instance, not a test's."""
        return self.root == Path("/")

    @property
    def prefix(self) -> str:
        """What the names of links, namespaces and tables begin with: `tv`, or three letters
        that follow from the root folder and never begin with `tv`."""
        if self.ordinary:
            return "tv"
        digest = hashlib.sha256(str(self.root).encode()).digest()
        return "u" + "".join(chr(ord("a") + byte % 26) for byte in digest[:2])

    @property
    def etc(self) -> Path:
        """Settings and what the bus is started with."""
        return self.root / "etc/trivet"

    @property
    def settings_file(self) -> Path:
        """The settings of all services; holds no secrets."""
        return self.etc / "trivet.toml"

    @property
    def bus_config(self) -> Path:
        """The bus server's configuration: public keys and permissions."""
        return self.etc / "nats.conf"

    @property
    def state(self) -> Path:
        """What outlives a reboot."""
        return self.root / "var/lib/trivet"

    @property
    def keys(self) -> Path:
        """The seeds by which services prove who they are, one file each, 0600."""
        return self.state / "keys"

    @property
    def tls(self) -> Path:
        """The certificate authority and the gateway's certificate."""
        return self.state / "tls"

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, which clients trust."""
        return self.tls / "ca.pem"

    @property
    def token_file(self) -> Path:
        """The first administrator's token, 0600."""
        return self.state / "first-token"

    @property
    def bus_data(self) -> Path:
        """The bus server's streams and buckets."""
        return self.state / "nats"

    @property
    def gateway_data(self) -> Path:
        """What the gateway writes down before it answers: the service user's."""
        return self.state / "gateway"

    @property
    def made_file(self) -> Path:
        """What `up` found and changed on the machine, so that `purge` can put it back."""
        return self.state / "made.json"

    @property
    def run(self) -> Path:
        """What need not outlive a reboot: sockets, records of processes."""
        return self.root / "run/trivet"

    @property
    def processes(self) -> Path:
        """One record a process that the supervisor started, and its own."""
        return self.run / "processes"

    @property
    def status_file(self) -> Path:
        """How the supervisor sees its processes."""
        return self.run / "status.json"

    @property
    def log(self) -> Path:
        """The logs, one a process."""
        return self.root / "var/log/trivet"

    @property
    def opt(self) -> Path:
        """Programs that were installed for the services."""
        return self.root / "opt/trivet"

    @property
    def venv(self) -> Path:
        """The Python environment that services run in, readable by their user."""
        return self.opt / "venv"

    @property
    def unit_file(self) -> Path:
        """The systemd unit, on machines that systemd runs."""
        return self.root / "etc/systemd/system/trivet.service"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that is wholly the instance's own."""
        return (self.run, self.log, self.state, self.etc, self.opt)

    def owns(self, path: str | Path) -> bool:
        """Whether a path lies in one of the instance's folders."""
        return any(Path(path).is_relative_to(folder) for folder in self.folders)

    def log_file(self, process: str) -> Path:
        """The log of one process."""
        return self.log / f"{process}.log"
