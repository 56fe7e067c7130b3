"""When something of the compute service wants attention. One entry a rule, most urgent first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from trivet.contracts.alarm import AlarmRule, Severity, alarm_kind
from trivet.contracts.compute.image import IMAGE, Image
from trivet.contracts.compute.node import NODE, Node
from trivet.contracts.compute.vm import VM, Power, Vm
from trivet.contracts.resource import AnyResource, Phase

ALARM = alarm_kind("compute")

RESTARTS_TOO_MANY = 3
RUN_LASTS = timedelta(minutes=5)


def _false(type_: str, *reasons: str) -> Callable[[AnyResource, datetime], str | None]:
    """The message of the condition of that type where it is not so (for one of `reasons`)."""

    def when(resource: AnyResource, now: datetime) -> str | None:
        found = resource.status.condition(type_)
        if found is None or found.status != "false" or (reasons and found.reason not in reasons):
            return None
        return f"{resource.meta.name}: {found.message or found.reason}"

    return when


def _silent(node: Node, now: datetime) -> str | None:
    if node.status.phase is not Phase.UNKNOWN:
        return None
    since = f" since {node.status.heard_at:%Y-%m-%d %H:%M:%S} UTC" if node.status.heard_at else ""
    return f"nothing is heard from node {node.meta.name}{since}; its VMs may run or not"


def _orphans(node: Node, now: datetime) -> str | None:
    found = node.status.condition("Orphans")
    if found is None or found.status != "true":
        return None
    return f"on node {node.meta.name} run guests that nobody asked for: {found.message}"


def _failed(vm: Vm, now: datetime) -> str | None:
    if vm.status.phase is not Phase.FAILED:
        return None
    return f"VM {vm.meta.name} failed: {_why(vm)}"


def _stuck(vm: Vm, now: datetime) -> str | None:
    if vm.status.phase is not Phase.PENDING or vm.meta.deleting_at is not None:
        return None
    return f"VM {vm.meta.name} is not as asked: {_why(vm)}"


def _why(vm: Vm) -> str:
    bad = [c for c in vm.status.conditions if c.status == "false" and c.message]
    told = [c.message for c in bad if c.type not in ("RestartNeeded", "Hardware")]
    return "; ".join(dict.fromkeys(told)) or "its conditions do not say why"


def _restarts(vm: Vm, now: datetime) -> str | None:
    status = vm.status
    runs = status.power is Power.RUNNING and status.started_at is not None
    lasts = runs and status.started_at is not None and now - status.started_at > RUN_LASTS
    if status.crashes < RESTARTS_TOO_MANY or lasts:
        return None
    return f"VM {vm.meta.name} ended {status.crashes} times in a row soon after its start"


def _io_error(vm: Vm, now: datetime) -> str | None:
    running = vm.status.condition("Running")
    paused = vm.status.power is Power.PAUSED and running is not None
    if not paused or running is None or running.reason != "IoError":
        return None
    return f"VM {vm.meta.name} on {vm.status.node} is paused: a disk of it does not answer"


def _unknown(vm: Vm, now: datetime) -> str | None:
    if vm.status.power is not Power.UNKNOWN:
        return None
    return f"whether VM {vm.meta.name} runs on {vm.status.node} is not known: {_running(vm)}"


def _running(vm: Vm) -> str:
    running = vm.status.condition("Running")
    return running.message if running else "nothing was said of it"


def _import_failed(image: Image, now: datetime) -> str | None:
    if image.status.phase is not Phase.FAILED:
        return None
    imported = image.status.condition("Imported")
    return f"image {image.meta.name}: {imported.message if imported else 'it was not imported'}"


RULES: tuple[AlarmRule[Node] | AlarmRule[Vm] | AlarmRule[Image], ...] = (
    AlarmRule(
        "node-silent",
        NODE,
        Severity.CRITICAL,
        "A node is not heard from",
        "Look whether the machine is up and reaches the others (ping, ssh). On it, "
        "`trivet doctor` says what is wrong; `trivet up` starts what does not run and leaves "
        "guests alone. A machine that is gone for good: "
        "`trivet node delete NAME`.",
        _silent,
    ),
    AlarmRule(
        "hypervisor-away",
        NODE,
        Severity.CRITICAL,
        "The hypervisor of a node does not answer",
        "Guests run on, but nothing can be started, stopped or changed there. The log of "
        "libvirtd on that node says why; it is started again by itself (`trivet up` does it at "
        "once).",
        _false("Hypervisor"),
        after_s=15,
    ),
    AlarmRule(
        "node-disk-full",
        NODE,
        Severity.CRITICAL,
        "A node's own file system is nearly full",
        "Free space on the file system that the cause names: old logs, crash dumps, images in "
        "the import folder. The bus stops taking writes when it has no room, and then nothing "
        "can be changed.",
        _false("DiskSpace"),
        after_s=5,
    ),
    AlarmRule(
        "bus-store-full",
        NODE,
        Severity.CRITICAL,
        "The bus's store is near its limit",
        "Free space on the file system of the bus's store, or grow it. The store itself holds "
        "little: resources that are not needed any more can be deleted.",
        _false("BusStore"),
        after_s=5,
    ),
    AlarmRule(
        "node-service-failing",
        NODE,
        Severity.CRITICAL,
        "A process of a node ends again and again, or is not there",
        "The log that the cause names says why. Once that is mended nothing is to be done: it is "
        "started again by itself, at longer and longer intervals; `trivet up` does it at once.",
        _false("Processes"),
        after_s=15,
    ),
    AlarmRule(
        "certificate-expired",
        NODE,
        Severity.CRITICAL,
        "The certificate of a gateway has expired",
        "Clients refuse to talk to this gateway. `trivet up` on the node makes a new certificate "
        "where Trivet made the old one; put your own in place otherwise, and restart the gateway.",
        _false("Certificate", "Expired"),
    ),
    AlarmRule(
        "certificate-expiring",
        NODE,
        Severity.WARNING,
        "The certificate of a gateway expires soon",
        "`trivet up` on the node makes a new one where Trivet made the old one; put your own in "
        "place otherwise, and restart the gateway.",
        _false("Certificate", "Expiring"),
    ),
    AlarmRule(
        "clock-wrong",
        NODE,
        Severity.WARNING,
        "A node's clock is not right",
        "Run an NTP client on the node (`timedatectl`, chrony) and let it reach its servers. "
        "Tokens, certificates and the times of events depend on it; leases do not.",
        _false("TimeSkew"),
        after_s=30,
    ),
    AlarmRule(
        "node-orphans",
        NODE,
        Severity.WARNING,
        "Guests run on a node that the cluster knows nothing of",
        "They are left alone: they may be what remains of a restored or lost state. Look what "
        "they are (`virsh -c` the node's libvirt `list`), and end them there if nobody needs "
        "them.",
        _orphans,
        after_s=60,
    ),
    AlarmRule(
        "vm-paused-io-error",
        VM,
        Severity.CRITICAL,
        "A VM is paused because a disk fails",
        "Look at its volume (`trivet volume show`), its pool (`trivet pool list`) and their "
        "alarms: mostly the pool is full. The guest sees no error and resumes by itself once the "
        "disk answers.",
        _io_error,
    ),
    AlarmRule(
        "vm-failed",
        VM,
        Severity.CRITICAL,
        "A VM failed",
        "`trivet vm show NAME` says at which step. Mend the cause; `trivet vm start NAME` tries "
        "again.",
        _failed,
    ),
    AlarmRule(
        "vm-restarts",
        VM,
        Severity.WARNING,
        "A VM ends soon after each start",
        "`trivet vm log NAME` shows what its console said last. It is started again at longer "
        "and longer intervals; `trivet vm stop NAME` ends that.",
        _restarts,
    ),
    AlarmRule(
        "vm-stuck",
        VM,
        Severity.WARNING,
        "A VM does not get what was asked for",
        "`trivet vm show NAME` shows its conditions: a node, space, an address or an image may "
        "be missing. It goes on by itself once the cause is mended.",
        _stuck,
        after_s=300,
    ),
    AlarmRule(
        "vm-unknown",
        VM,
        Severity.WARNING,
        "Whether a VM runs is not known",
        "Its node is silent or its hypervisor does not answer: see the alarm of the node, and "
        "`trivet doctor` there. Nothing is started elsewhere while it may run.",
        _unknown,
        after_s=60,
    ),
    AlarmRule(
        "image-import-failed",
        IMAGE,
        Severity.WARNING,
        "An image could not be imported",
        "The cause says what was wrong with the source. `trivet image delete NAME`, and import "
        "it again once that is mended.",
        _import_failed,
    ),
)
