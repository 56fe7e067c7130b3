"""The acceleration is found out once a boot, and a probe that hangs is a clear no."""

import asyncio
from pathlib import Path

import pytest

from trivet.contracts.compute.node import Accel
from trivet.plugins.compute import accel


@pytest.fixture
def kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a /dev/kvm, and a boot id."""
    device, boot_id = tmp_path / "kvm", tmp_path / "boot_id"
    device.touch()
    boot_id.write_text("boot-1\n")
    monkeypatch.setattr(accel, "KVM_DEVICE", device)
    monkeypatch.setattr(accel, "BOOT_ID", boot_id)
    return tmp_path


def emulator(folder: Path, script: str) -> str:
    path = folder / "emulator"
    path.write_text(f"#!/bin/sh\necho run >>{folder}/runs\n{script}\n")
    path.chmod(0o755)
    return str(path)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines())


def test_the_guest_is_a_boot_sector() -> None:
    sector = accel.boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")
    assert sector[0x80:0x90] == bytes(8) + bytes.fromhex("00000000009a2000")
    assert sector[0x90:0x96] == bytes.fromhex("0f00807c0000")


async def test_a_guest_that_says_so_means_kvm_until_the_next_boot(kvm: Path) -> None:
    program = emulator(kvm, "exit 85")
    for _ in range(2):
        verdict = await accel.decide("auto", program, kvm)
        assert verdict.accel is Accel.KVM
    assert runs(kvm) == 1
    (kvm / "boot_id").write_text("boot-2\n")
    await accel.decide("auto", program, kvm)
    assert runs(kvm) == 2


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exec sleep 60", "did not finish in 0.3 s"),
        ("echo no such accelerator >&2; exit 1", "no such accelerator"),
        ("exit 0", "ended with 0"),
    ],
)
async def test_every_failure_means_tcg_and_says_why(
    kvm: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(accel, "PROBE_BOUND_S", 0.3)
    async with asyncio.timeout(20):
        verdict = await accel.decide("auto", emulator(kvm, script), kvm)
    assert verdict.accel is Accel.TCG
    assert reason in verdict.reason


async def test_without_kvm_nothing_is_run(kvm: Path) -> None:
    (kvm / "kvm").unlink()
    verdict = await accel.decide("auto", emulator(kvm, "exit 85"), kvm)
    assert verdict.accel is Accel.TCG
    assert not (kvm / "runs").exists()
    (kvm / "kvm").touch()  # the module was loaded: that must be seen without a new boot
    assert (await accel.decide("auto", str(kvm / "emulator"), kvm)).accel is Accel.KVM


@pytest.mark.parametrize("wanted", list(Accel))
async def test_what_is_configured_is_taken(kvm: Path, wanted: Accel) -> None:
    verdict = await accel.decide(wanted.value, emulator(kvm, "exit 1"), kvm)
    assert verdict.accel is wanted
    assert not (kvm / "runs").exists()


async def test_a_spoilt_record_is_made_anew(kvm: Path) -> None:
    (kvm / "accel.json").write_text("{")
    assert (await accel.decide("auto", emulator(kvm, "exit 85"), kvm)).accel is Accel.KVM
