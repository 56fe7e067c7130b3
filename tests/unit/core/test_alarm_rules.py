"""Each rule: what is cause for it, what is not, and that people are told what to do."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trivet.contracts.alarm import alarm_rules
from trivet.contracts.compute.image import Image, ImageSourceSpec, ImageSpec, ImageStatus
from trivet.contracts.compute.node import Node, NodeSpec, NodeStatus
from trivet.contracts.compute.vm import Power, Vm, VmSpec, VmStatus
from trivet.contracts.endpoint import SERVICES
from trivet.contracts.model import ResourceId
from trivet.contracts.network.port import Port, PortSpec, PortStatus
from trivet.contracts.resource import Condition, Meta, Phase
from trivet.contracts.security.identity import Token, TokenSpec, TokenStatus
from trivet.contracts.storage.disk import Disk, DiskHealth, DiskRole, DiskSpec, DiskStatus
from trivet.contracts.storage.pool import Pool, PoolMember, PoolSpec, PoolStatus, PoolUsage
from trivet.contracts.storage.volume import Replica, ReplicaState, Volume, VolumeSpec, VolumeStatus

NOW = datetime(2026, 1, 2, tzinfo=UTC)
RULES = {rule.name: rule for service in SERVICES for rule in alarm_rules(service)}
TOP = Path(__file__).parents[3]


def meta(created_at=NOW):
    return Meta(id=ResourceId("x-1"), name="x", project="p", created_at=created_at)


def bad(type_, reason="Failed"):
    return Condition(type=type_, status="false", reason=reason, message="it broke")


def node(*conditions, phase=Phase.READY):
    return Node(meta=meta(), spec=NodeSpec(), status=NodeStatus(phase=phase, conditions=conditions))


def vm(*conditions, phase=Phase.READY, power=Power.RUNNING, **more):
    status = VmStatus(phase=phase, power=power, node="n1", conditions=conditions, **more)
    return Vm(meta=meta(), spec=VmSpec(), status=status)


def image(phase):
    spec = ImageSpec(source=ImageSourceSpec(file="a.raw"))
    return Image(
        meta=meta(), spec=spec, status=ImageStatus(phase=phase, conditions=(bad("Imported"),))
    )


def pool(*conditions, size=100, phase=Phase.READY):
    usage = (PoolUsage(node="n1", size_bytes=size, used_bytes=0),) if size else ()
    spec = PoolSpec(members=(PoolMember(node="n1"),))
    status = PoolStatus(phase=phase, usage=usage, conditions=conditions)
    return Pool(meta=meta(), spec=spec, status=status)


def volume(phase, *conditions):
    replica = Replica(node="n1", disk="d", state=ReplicaState.STALE, reason="was away")
    status = VolumeStatus(phase=phase, replicas=(replica,), conditions=conditions)
    return Volume(meta=meta(), spec=VolumeSpec(size_gib=1), status=status)


def disk(health=DiskHealth.OK, role=DiskRole.DATA, rotten_blocks=0):
    status = DiskStatus(phase=Phase.READY, node="n1", health=health, rotten_blocks=rotten_blocks)
    return Disk(meta=meta(), spec=DiskSpec(role=role), status=status)


def port(*conditions, node="n1"):
    status = PortStatus(node=node, conditions=conditions)
    return Port(meta=meta(), spec=PortSpec(network="n", node="n1"), status=status)


def token(lives, left):
    made = NOW + left - lives
    spec = TokenSpec(user="u", expires_at=NOW + left)
    return Token(meta=meta(made), spec=spec, status=TokenStatus())


DAYS = timedelta(days=1)
LONG_AGO = NOW - timedelta(hours=1)
WELL = (
    node(),
    vm(),
    vm(crashes=3, started_at=LONG_AGO),
    image(Phase.READY),
    pool(),
    volume(Phase.READY),
    disk(),
    disk(DiskHealth.MISSING, role=DiskRole.NONE),
    port(),
    token(DAYS, DAYS),
)
ILL = [
    ("node-silent", node(phase=Phase.UNKNOWN)),
    ("node-orphans", node(bad("Orphans").model_copy(update={"status": "true"}))),
    ("hypervisor-away", node(bad("Hypervisor", "Away"))),
    ("node-disk-full", node(bad("DiskSpace"))),
    ("bus-store-full", node(bad("BusStore"))),
    ("node-service-failing", node(bad("Processes"))),
    ("certificate-expired", node(bad("Certificate", "Expired"))),
    ("certificate-expiring", node(bad("Certificate", "Expiring"))),
    ("clock-wrong", node(bad("TimeSkew", "Skewed"))),
    ("vm-paused-io-error", vm(bad("Running", "IoError"), power=Power.PAUSED)),
    ("vm-failed", vm(bad("Progress"), phase=Phase.FAILED)),
    ("vm-restarts", vm(power=Power.STOPPED, crashes=3)),
    ("vm-stuck", vm(bad("Scheduled"), phase=Phase.PENDING)),
    ("vm-unknown", vm(phase=Phase.UNKNOWN, power=Power.UNKNOWN)),
    ("image-import-failed", image(Phase.FAILED)),
    ("pool-filling", pool(bad("Space", "Filling"))),
    ("pool-nearly-full", pool(bad("Space", "NearlyFull"))),
    ("pool-full", pool(bad("Space", "PoolFull"))),
    ("pool-overcommitted", pool(bad("Promised", "Overcommitted"))),
    ("pool-not-open", pool(size=0, phase=Phase.PENDING)),
    ("volume-lost", volume(Phase.FAILED)),
    ("volume-degraded", volume(Phase.DEGRADED)),
    ("volume-unplaced", volume(Phase.PENDING, bad("Placed", "NoSpace"))),
    ("volume-not-grown", volume(Phase.READY, bad("Grown", "NoSpace"))),
    ("volume-differs", volume(Phase.READY, bad("Consistent", "Undecided"))),
    ("disk-warned", disk(DiskHealth.WARNED)),
    ("disk-bad", disk(DiskHealth.ISOLATED)),
    ("disk-bad", disk(DiskHealth.FAILED)),
    ("disk-bad", disk(DiskHealth.MISSING)),
    ("disk-rots", disk(rotten_blocks=1)),
    ("port-not-protected", port(bad("Protected"))),
    ("port-not-plugged", port(bad("Plugged"), bad("Protected"), node=None)),
    ("token-expiring", token(30 * DAYS, DAYS)),
]


def raised_by(resource):
    about = [r for r in RULES.values() if isinstance(resource, r.kind.model)]
    return {r.name: r.when(resource, NOW) for r in about if r.when(resource, NOW) is not None}


@pytest.mark.parametrize(("name", "resource"), ILL, ids=[name for name, _ in ILL])
def test_what_is_wrong_is_cause_for_one_alarm(name, resource):
    found = raised_by(resource)
    assert list(found) == [name]
    assert "x" in found[name], "the cause names what it is about"


@pytest.mark.parametrize("resource", WELL, ids=repr)
def test_what_is_well_is_cause_for_none(resource):
    assert raised_by(resource) == {}


def test_every_rule_has_a_case_here():
    assert {name for name, _ in ILL} >= set(RULES)


def test_a_rule_is_declared_once():
    names = [rule.name for service in SERVICES for rule in alarm_rules(service)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_people_are_told_what_it_means_and_what_to_do(rule):
    assert rule.title[0].isupper()
    assert not rule.title.endswith(".")
    assert len(rule.remedy) > 40
    assert rule.remedy.endswith(".")
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", rule.name)
    assert len(rule.alarm_name("volume-0123456789abcdef")) <= 63
    page = (TOP / "docs/alarms.md").read_text()
    assert f"## {rule.name}\n" in page
    assert rule.remedy in page
