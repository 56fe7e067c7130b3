"""Decides how guests run on this machine: by the processor (KVM) or by translation (TCG).

/dev/kvm that opens proves nothing: inside some virtual machines KVM is there and interprets
every instruction, so that a guest takes minutes to boot and looks hung. So a tiny guest is
really run: it must enter long mode, run twenty million loops and say so, within a bound that
working hardware meets many times over. The verdict is kept until the machine boots again,
since a probe that fails costs its whole bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from pydantic import ValidationError

from trivet.contracts.compute.node import Accel
from trivet.contracts.model import Model

PROBE_BOUND_S = 10.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KVM_DEVICE = Path("/dev/kvm")

_SAID_SO = 0x2A
_EXIT_STATUS = (_SAID_SO << 1) | 1  # what isa-debug-exit makes of the byte

# The guest, which the BIOS puts at 0x7c00 and enters in real mode.
_CODE = bytes.fromhex(
    "fa"  # cli
    "31c0 8ed8 8ec0 8ed0"  # ds = es = ss = 0
    "bc007c"  # mov sp,0x7c00
    "bf0010 6689ff"  # mov di,0x1000; mov edi,edi
    "6631c0 b9000c fc 66f3ab"  # clear 12 KiB there for page tables (rep stosd)
    "c70600100320"  # PML4[0] = 0x2000, present and writable
    "c70600200330"  # PDPT[0] = 0x3000, present and writable
    "c70600308300"  # PD[0] = one page of 2 MiB at 0
    "66b820000000 0f22e0"  # cr4 = PAE
    "66b800100000 0f22d8"  # cr3 = 0x1000
    "66b9800000c0 0f32 0d0001 0f30"  # rdmsr EFER, set LME, wrmsr
    "660f0116907c"  # lgdt [0x7c90]
    "66b801000080 0f22c0"  # cr0 = PG and PE: long mode
    "ea617c0800"  # jmp 8:0x7c61, from here on 64-bit code
    "31c0 0fa2"  # cpuid
    "0f20d8 0f22d8"  # cr3 = cr3: flush the page tables
    "b9002d3101"  # mov ecx,20000000
    "ffc9 75fc"  # dec ecx; jnz to it
    "b02a e6f4"  # out 0xf4,0x2a: the debug-exit device ends QEMU
    "f4 ebfd"  # hlt for ever, should that device be missing
)
_GDT = bytes(8) + bytes.fromhex("00000000009a2000")  # at 0x7c80: none, and 64-bit code
_GDTR = bytes.fromhex("0f00 807c0000")  # at 0x7c90: the limit and address of the table


class Verdict(Model):
    """How guests run, and why: a sentence for people. `boot_id` says for which boot."""

    accel: Accel
    reason: str
    boot_id: str = ""


def boot_sector() -> bytes:
    """The 512 bytes of the probe's guest."""
    table = _CODE.ljust(0x80, b"\0") + _GDT + _GDTR
    return table.ljust(510, b"\0") + b"\x55\xaa"


async def decide(wanted: str, emulator: str, state_dir: Path) -> Verdict:
    """The acceleration to use where `wanted` is `auto`, `kvm` or `tcg`.

    `auto` is answered from `state_dir` if it was found out since the last boot, else by a
    probe; `kvm` and `tcg` are taken at their word. Takes at most `PROBE_BOUND_S` and a little.
    """
    if wanted != "auto":
        return Verdict(accel=Accel(wanted), reason=f"accel = {wanted} is configured")
    boot_id = _boot_id()
    kept = state_dir / "accel.json"
    known = _read(kept)
    if known is not None and known.boot_id == boot_id:
        return known
    if not _present(KVM_DEVICE):
        absent = f"there is no {KVM_DEVICE} (off in the firmware, or no kernel module)"
        return Verdict(accel=Accel.TCG, reason=f"{absent}; guests are translated, which is slow")
    failure = await run_probe(emulator, Accel.KVM, PROBE_BOUND_S)
    if failure is None:
        verdict = Verdict(accel=Accel.KVM, reason="a probe guest ran under KVM", boot_id=boot_id)
    else:
        reason = f"KVM does not work here: {failure}; guests are translated, which is slow"
        verdict = Verdict(accel=Accel.TCG, reason=reason, boot_id=boot_id)
    _keep(kept, verdict)
    return verdict


async def run_probe(emulator: str, accel: Accel, bound_s: float) -> str | None:
    """Run the probe guest under `accel`; why it failed, or None. Leaves nothing behind."""
    image = os.memfd_create("boot")  # in memory: /tmp may be full, or take nothing
    try:
        os.write(image, boot_sector())
        argv = (
            *(emulator, "-accel", accel.value, "-machine", "pc", "-m", "32"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-device", f"isa-debug-exit,iobase={0xF4:#x},iosize=4"),
            *("-drive", f"file=/proc/self/fd/{image},format=raw,if=floppy"),
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=(image,),
            )
        except OSError as e:
            return f"{emulator} can't be run: {e.strerror}"
        return await _verdict(process, bound_s)
    finally:
        os.close(image)


async def _verdict(process: asyncio.subprocess.Process, bound_s: float) -> str | None:
    """Wait for the probe's end; it is killed whatever happens to us."""
    try:
        async with asyncio.timeout(bound_s):
            _, said = await process.communicate()
    except TimeoutError:
        return f"the probe guest did not finish in {bound_s:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == _EXIT_STATUS:
        return None
    words = said.decode(errors="replace").strip().splitlines()
    return words[-1][:200] if words else f"the probe guest ended with {process.returncode}"


def _read(path: Path) -> Verdict | None:
    try:
        return Verdict.model_validate_json(path.read_text())
    except (OSError, ValidationError):
        return None


def _keep(path: Path, verdict: Verdict) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(verdict.model_dump_json())
    fresh.replace(path)


def _boot_id() -> str:
    return BOOT_ID.read_text().strip()


def _present(device: Path) -> bool:
    return device.exists()
