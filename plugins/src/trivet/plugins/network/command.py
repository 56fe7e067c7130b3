"""Running the node's own tools (ip, nft, dnsmasq, modprobe), with their failures as our errors."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from trivet.contracts.errors import DRIVER_FAILED, Fatal

COMMAND_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str


async def attempt(*argv: str, stdin: str | None = None) -> Finished:
    """Run a command to its end, whatever it answers; a missing one ends with 127."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        return Finished(127, "", f"{argv[0]} is not installed")
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise Fatal(
            DRIVER_FAILED, f"{' '.join(argv[:6])} did not end within {COMMAND_TIMEOUT_S:.0f} s"
        ) from error
    return Finished(process.returncode or 0, out.decode(), err.decode())


async def run(*argv: str, stdin: str | None = None) -> str:
    """What a command printed; `Fatal(DRIVER_FAILED)` with its last words if it failed."""
    finished = await attempt(*argv, stdin=stdin)
    if finished.code != 0:
        said = finished.err.strip().splitlines()[-3:]
        raise Fatal(DRIVER_FAILED, f"{' '.join(argv[:6])}: {' '.join(said) or finished.code}")
    return finished.out


async def succeeds(*argv: str, stdin: str | None = None, expected: int = 0) -> bool:
    """Whether a command ends with `expected`."""
    return (await attempt(*argv, stdin=stdin)).code == expected
