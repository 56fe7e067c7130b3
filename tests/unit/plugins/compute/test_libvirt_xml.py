"""A domain becomes XML that says all of it, and its record comes back out of it."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic, DomainSpec, DomainTuning
from trivet.contracts.compute.node import Accel
from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.libvirt_cpu_xml import tuning_in
from trivet.plugins.compute.libvirt_xml import (
    ELEMENT,
    NAMESPACE,
    HostFacts,
    digest_of,
    domain_uuid,
    read_record,
    render,
)

FACTS = HostFacts(
    accel=Accel.TCG,
    emulator="/usr/bin/qemu-system-x86_64",
    console_dir=Path("/run/c"),
    log_dir=Path("/var/c"),
    seed_dir=Path("/state/seed"),
    nvram_dir=Path("/var/n"),
    uefi_code="/fw/code.fd",
    uefi_vars="/fw/vars.fd",
)
SPEC = DomainSpec(
    id=ResourceId("vm-0123456789abcdef"),
    name="web-1",
    project="p1",
    generation=4,
    epoch=9,
    vcpus=2,
    memory_mib=512,
    disks=(
        DomainDisk(name="root", socket="/s/a.sock", export="a.e3", serial="root", boot_order=1),
        DomainDisk(name="data", socket="/s/b.sock", export="b.e1", serial="data"),
    ),
    nics=(DomainNic(device="tvp0123456789", mac="52:54:00:01:02:03", mtu=1450),),
)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF), max_size=20)


def record_in(xml: str) -> tuple[DomainSpec, str]:
    element = ET.fromstring(xml).find(f"./metadata/{{{NAMESPACE}}}{ELEMENT}")
    assert element is not None
    record = read_record(ET.tostring(element, encoding="unicode"))
    assert record is not None
    return record


def test_the_whole_domain_is_in_the_xml() -> None:
    root = ET.fromstring(render(SPEC, FACTS))
    found = root.find
    assert root.get("type") == "qemu"
    assert root.findtext("uuid") == domain_uuid(SPEC.id)
    assert root.findtext("name") == "tv-vm-0123456789abcdef"
    assert (root.findtext("vcpu"), root.findtext("memory")) == ("2", "512")
    disks = root.findall("devices/disk")
    assert [d.find("source/host").get("socket") for d in disks] == ["/s/a.sock", "/s/b.sock"]  # type: ignore[union-attr]
    assert [d.find("source").get("name") for d in disks] == ["a.e3", "b.e1"]  # type: ignore[union-attr]
    assert [d.find("target").get("dev") for d in disks] == ["vda", "vdb"]  # type: ignore[union-attr]
    drivers = [d.find("driver") for d in disks]
    assert all(d is not None and d.get("error_policy") == "stop" for d in drivers)
    assert all(d is not None and d.get("rerror_policy") == "stop" for d in drivers)
    assert disks[1].find("boot") is None
    target = found("devices/interface/target")
    assert target is not None
    assert (target.get("dev"), target.get("managed")) == ("tvp0123456789", "no")
    assert root.findall("devices/serial/log")[0].get("file") == "/var/c/vm-0123456789abcdef.log"
    ports = [c for c in root.iter("controller") if c.get("model") == "pcie-root-port"]
    assert len(ports) > len(disks) + 1


@given(name=WORDS, project=WORDS, generation=st.integers(0, 2**40), epoch=st.integers(0, 2**40))
def test_the_record_comes_back(name: str, project: str, generation: int, epoch: int) -> None:
    changes = {"name": name, "project": project, "generation": generation, "epoch": epoch}
    spec = SPEC.model_copy(update=changes)
    rendered = render(spec, FACTS)
    assert record_in(rendered) == (spec, digest_of(rendered))


def test_alike_means_the_same_domain_on_the_same_host() -> None:
    digest = digest_of(render(SPEC, FACTS))
    assert digest_of(render(SPEC.model_copy(), FACTS)) == digest
    others = [
        render(SPEC.model_copy(update={"epoch": 10}), FACTS),
        render(SPEC.model_copy(update={"memory_mib": 513}), FACTS),
        render(SPEC, replace(FACTS, accel=Accel.KVM)),
    ]
    assert digest not in {digest_of(other) for other in others}


@pytest.mark.parametrize("text", ["", "<a/>", "<a>{}</a>", "<a>not json</a>", "no xml"])
def test_what_is_not_our_record_is_none(text: str) -> None:
    assert read_record(text) is None


def test_kvm_passes_the_processor_through_and_tcg_does_not() -> None:
    modes = []
    for accel in (Accel.KVM, Accel.TCG):
        cpu = ET.fromstring(render(SPEC, replace(FACTS, accel=accel))).find("cpu")
        assert cpu is not None
        modes.append(cpu.get("mode"))
    assert modes == ["host-passthrough", "maximum"]


def test_uefi_needs_firmware() -> None:
    uefi = SPEC.model_copy(update={"firmware": "uefi"})
    assert "/var/n/vm-0123456789abcdef.fd" in render(uefi, FACTS)
    with pytest.raises(Refused, match="no UEFI firmware"):
        render(uefi, replace(FACTS, uefi_code=None))


def test_a_tpm_needs_its_program() -> None:
    spec = SPEC.model_copy(update={"tpm": True})
    backend = ET.fromstring(render(spec, replace(FACTS, tpm=True))).find("./devices/tpm/backend")
    assert backend is not None
    assert backend.get("version") == "2.0"
    with pytest.raises(Refused, match="no TPM"):
        render(spec, FACTS)


def test_room_to_grow_is_made_where_it_is_asked_for() -> None:
    assert "maxMemory" not in render(SPEC, FACTS)
    room = {"vcpus": 2, "max_vcpus": 4, "max_memory_mib": 4096}
    root = ET.fromstring(render(SPEC.model_copy(update=room), FACTS))
    vcpu, cell = root.find("vcpu"), root.find("./cpu/numa/cell")
    assert vcpu is not None
    assert cell is not None
    assert (vcpu.text, vcpu.get("current")) == ("4", "2")
    assert cell.get("cpus") == "0-3"
    assert root.findtext("maxMemory") == "4096"
    # Each vcpu that comes under translation takes a part of the buffer, which must have one left.
    assert root.findtext("./features/tcg/tb-cache") == "512"


def test_disks_connect_again_where_libvirt_can_be_told() -> None:
    assert "reconnect" not in render(SPEC, FACTS)
    assert '<reconnect delay="10" />' in render(SPEC, replace(FACTS, reconnects=True))


def test_a_limit_that_would_not_hold_is_refused() -> None:
    limited = SPEC.model_copy(update={"cpu": DomainTuning(limit_pct=50, shares=99, pin=(1, 3))})
    with pytest.raises(Refused, match="limits"):
        render(limited, FACTS)
    tune = ET.fromstring(render(limited, replace(FACTS, cgroups=True))).find("cputune")
    assert tune is not None
    assert (tune.findtext("quota"), tune.findtext("shares")) == ("50000", "99")
    assert [(p.get("vcpu"), p.get("cpuset")) for p in tune.findall("vcpupin")] == [
        ("0", "1"),
        ("1", "3"),
    ]


@pytest.mark.parametrize("id_", ["../x", "a/b", "", "A", "x" * 64, "vm-1\n"])
def test_an_id_never_leads_out_of_our_folders(id_: str) -> None:
    with pytest.raises(Refused):
        render(SPEC.model_copy(update={"id": id_}), FACTS)


def test_many_disks_have_names() -> None:
    disk = SPEC.disks[1]
    many = SPEC.model_copy(update={"disks": (disk,) * 28})
    root = ET.fromstring(render(many, FACTS))
    names = [target.get("dev") for target in root.findall("devices/disk/target")]
    assert names[25:] == ["vdz", "vdaa", "vdab"]


@pytest.mark.parametrize(
    ("shares", "unified", "told"),
    [(1024, False, "1024"), (1024, True, "100"), (2, True, "1"), (262144, True, "10000")],
)
def test_shares_are_in_the_kernels_own_measure(shares: int, unified: bool, told: str) -> None:
    weighed = SPEC.model_copy(update={"cpu": DomainTuning(shares=shares)})
    root = ET.fromstring(render(weighed, replace(FACTS, cgroups=True, unified=unified)))
    assert root.findtext("cputune/shares") == told
    assert root.findtext("resource/partition") == f"/{FACTS.name_prefix}"
    assert tuning_in(root, weighed, weighed.vcpus, 8) == weighed.cpu
    assert tuning_in(root, SPEC.model_copy(update={"cpu": DomainTuning(shares=5000)}), 2, 8) is None


def test_a_tuning_that_somebody_changed_is_not_ours() -> None:
    ours = DomainTuning(shares=512, limit_pct=50, pin=(1, 3), allowed=(1, 2, 3))
    tuned = SPEC.model_copy(update={"cpu": ours})
    facts = replace(FACTS, cgroups=True)
    root = ET.fromstring(render(tuned, facts))
    assert tuning_in(root, tuned, 2, 8) == ours
    for other in (
        {"shares": 513},
        {"limit_pct": None},
        {"limit_pct": 20},
        {"pin": (1, 2)},
        {"pin": ()},
        {"allowed": (1, 2)},
        {"allowed": ()},
    ):
        changed = tuned.model_copy(update={"cpu": ours.model_copy(update=other)})
        assert tuning_in(ET.fromstring(render(changed, facts)), tuned, 2, 8) is None, other
