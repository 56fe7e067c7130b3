"""How a domain gets its processors, in libvirt's XML: written for a start, read from a live one.

Pure. What is read back is compared with what we last asked for, as libvirt would write it: then the
record says it all, and whatever else is found was somebody else's doing.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import DomainSpec, DomainTuning
from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.plugins.compute.inventory import cpu_list
from trivet.plugins.compute.libvirt_device_xml import leaf

PERIOD_US = 100_000
SHARES_OF_ONE, WEIGHT_OF_ONE, WEIGHT_MAX = 1024, 100, 10_000


def quota_us(tuning: DomainTuning) -> int:
    """The processor time of each vcpu in a period; -1: as much as there is."""
    return -1 if tuning.limit_pct is None else PERIOD_US * tuning.limit_pct // 100


def kernel_shares(shares: int, unified: bool) -> int:
    """Shares as the kernel takes them: cgroups of the second generation weigh from 1 to 10000, with
    100 for what has 1024 shares in those of the first. libvirt passes them on as they are."""
    weight = round(shares * WEIGHT_OF_ONE / SHARES_OF_ONE)
    return max(1, min(weight, WEIGHT_MAX)) if unified else shares


def check(tuning: DomainTuning, cgroups: bool) -> None:
    """Raises `Refused` for what would have no effect here."""
    if not cgroups and (tuning.limit_pct is not None or tuning.shares is not None):
        raise Refused(
            NOT_SUPPORTED,
            "cpu shares and limits have no effect on this node: its hypervisor has no cgroups",
            hint="leave them out, or place the VM on another node",
        )


def vcpu_set(tuning: DomainTuning, vcpu: int) -> tuple[int, ...]:
    """The processors that a vcpu may run on; empty: any."""
    return (tuning.pin[vcpu],) if vcpu < len(tuning.pin) else tuning.allowed


def add_tuning(
    root: ET.Element, spec: DomainSpec, partition: str | None, *, unified: bool = False
) -> None:
    """Shares, limit and pinning of a domain; in the cgroup `partition` (None: without), which is
    of the second generation if `unified`. Raises `Refused` for what would have no effect."""
    tuning = spec.cpu
    check(tuning, partition is not None)
    if partition is not None:
        leaf(ET.SubElement(root, "resource"), "partition", f"/{partition}")
    tune = ET.Element("cputune")
    if tuning.shares is not None:
        leaf(tune, "shares", str(kernel_shares(tuning.shares, unified)))
    if tuning.limit_pct is not None:
        leaf(tune, "period", str(PERIOD_US))
        leaf(tune, "quota", str(quota_us(tuning)))
    for vcpu in range(max(spec.vcpus, spec.max_vcpus or 0)):
        if processors := vcpu_set(tuning, vcpu):
            ET.SubElement(tune, "vcpupin", vcpu=str(vcpu), cpuset=text_of(processors))
    if tuning.allowed:
        ET.SubElement(tune, "emulatorpin", cpuset=text_of(tuning.allowed))
    if len(tune):
        root.append(tune)


def tuning_in(root: ET.Element, spec: DomainSpec, vcpus: int, cpus: int) -> DomainTuning | None:
    """The tuning of a live domain with that many vcpus, on a machine with that many processors, if
    it is that of its record; None: somebody else changed it."""
    asked = spec.cpu
    shares = _number(root, "shares")
    quota = _number(root, "quota")
    told = {kernel_shares(asked.shares or 0, unified) for unified in (True, False)}
    if asked.shares is not None and shares not in told:
        return None
    if (quota if quota is not None and quota > 0 else -1) != quota_us(asked):
        return None
    pins = {p.get("vcpu"): p.get("cpuset", "") for p in root.findall("./cputune/vcpupin")}
    every = frozenset(range(cpus))
    for vcpu in range(vcpus):
        wanted = frozenset(vcpu_set(asked, vcpu)) or every
        if (frozenset(cpu_list(pins.get(str(vcpu), ""))) or every) != wanted:
            return None
    emulator = root.find("./cputune/emulatorpin")
    runs_on = frozenset(cpu_list(emulator.get("cpuset", "") if emulator is not None else ""))
    return asked if (runs_on or every) == (frozenset(asked.allowed) or every) else None


def text_of(processors: Iterable[int]) -> str:
    """A set of processors as libvirt reads it."""
    return ",".join(str(number) for number in sorted(processors))


def _number(root: ET.Element, tag: str) -> int | None:
    found = root.find(f"./cputune/{tag}")
    return int(found.text) if found is not None and found.text else None
