"""Blocking calls to the agent in a guest, through libvirtd; run in a thread, by `Connection.run`.

What comes from a guest is a stranger's word: it is bounded and parsed before it goes any further.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
import subprocess
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trivet.contracts.compute.guest_agent import GuestReport
from trivet.contracts.errors import CONFLICT, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import ResourceId

if TYPE_CHECKING:
    import libvirt

CHANNEL = "org.qemu.guest_agent.0"
ANSWER_S = 5
FREEZE_ANSWER_S = 15
THAW_TRIES = 120
ADDRESSES_MAX = 64
_CONNECTED = f"./devices/channel/target[@name='{CHANNEL}'][@state='connected']"


def connected(domain: libvirt.virDomain) -> bool:
    """Whether an agent has the channel open in the guest."""
    return bool(domain.isActive()) and ET.fromstring(domain.XMLDesc(0)).find(_CONNECTED) is not None


def report(domain: libvirt.virDomain) -> GuestReport | None:
    """What the guest says, or None where no agent is connected."""
    import libvirt

    if not connected(domain):
        return None
    domain.agentSetResponseTimeout(ANSWER_S, 0)
    wanted = libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME | libvirt.VIR_DOMAIN_GUEST_INFO_INTERFACES
    return report_of(domain.guestInfo(wanted, 0))


def report_of(told: Mapping[str, object]) -> GuestReport:
    """The report in libvirt's `guestInfo`. Pure."""
    hostname = told.get("hostname")
    usable = isinstance(hostname, str) and 0 < len(hostname) <= 255 and hostname.isprintable()
    found: list[str] = []
    for key in sorted(k for k in told if k.startswith("if.") and k.endswith(".addr")):
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(str(told[key]).partition("%")[0])
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                found.append(str(address))
    addresses = tuple(dict.fromkeys(found))[:ADDRESSES_MAX]
    return GuestReport(hostname=str(hostname) if usable else None, addresses=addresses)


def freeze(domain: libvirt.virDomain, id_: ResourceId) -> int:
    """Freeze the guest's file systems; returns how many."""
    _demand(domain, id_)
    domain.agentSetResponseTimeout(FREEZE_ANSWER_S, 0)
    return int(domain.fsFreeze())


def thaw(domain: libvirt.virDomain, id_: ResourceId) -> int:
    """Thaw them; returns how many were frozen."""
    _demand(domain, id_)
    domain.agentSetResponseTimeout(FREEZE_ANSWER_S, 0)
    return int(domain.fsThaw())


def set_time(domain: libvirt.virDomain, id_: ResourceId) -> None:
    """Set the guest's clock to ours."""
    _demand(domain, id_)
    domain.agentSetResponseTimeout(ANSWER_S, 0)
    now_ns = time.time_ns()
    domain.setTime({"seconds": now_ns // 10**9, "nseconds": now_ns % 10**9})


def thaw_later(uri: str, domain_uuid: str, bound_s: float) -> None:
    """Have a guest thawed after `bound_s` by a process of nobody's, which outlives this one and
    tries for as long as it takes a libvirtd that was killed to come back."""
    thaws = f"virsh -q -c {shlex.quote(uri)} domfsthaw {shlex.quote(domain_uuid)}"
    script = (
        f"sleep {bound_s:g}; tries=0; until {thaws}; do"
        f" tries=$((tries + 1)); [ $tries -lt {THAW_TRIES} ] || exit 1; sleep 1; done"
    )
    argv = ("setsid", "/bin/sh", "-c", f"({script}) </dev/null >/dev/null 2>&1 &")
    subprocess.run(argv, check=True, timeout=ANSWER_S)


def _demand(domain: libvirt.virDomain, id_: ResourceId) -> None:
    if not domain.isActive():
        raise Refused(CONFLICT, f"{id_} does not run: nobody answers in it")
    import libvirt

    # What is asked of a paused guest would be done whenever it runs on.
    if not connected(domain) or domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
        raise Retry(UNAVAILABLE, f"no agent answers in {id_}", retry_after_s=5)
