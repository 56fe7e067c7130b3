"""QMP: asking a QEMU process, a few questions a connection, and listening to what it tells.

Connecting anew each time keeps no state that could go stale; a monitor that does not answer in
time is reported as such, and its process is another one's business. A monitor serves one client
at a time: who listens does so at one of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from trivet.contracts.errors import DRIVER_FAILED, Fatal

QMP_TIMEOUT_S = 5.0
LINE_LIMIT = 4 * 1024 * 1024


async def ask(socket: Path, command: str, **arguments: Any) -> Any:
    """What `command` returns. Raises `Fatal` for an error, silence or no listener."""
    (answer,) = await ask_all(socket, (command, arguments))
    return answer


async def ask_all(socket: Path, *questions: tuple[str, dict[str, Any]]) -> list[Any]:
    """What these commands return, over one connection. Raises as `ask` does."""
    command = questions[0][0]
    try:
        async with asyncio.timeout(QMP_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=LINE_LIMIT)
            try:
                await reader.readline()
                await _execute(reader, writer, "qmp_capabilities", {})
                return [await _execute(reader, writer, c, a) for c, a in questions]
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        raise Fatal(DRIVER_FAILED, f"{command} over {socket}: {error!r}") from error


async def events(socket: Path) -> AsyncIterator[dict[str, Any]]:
    """What happens, from the moment on that an empty one is given, until the process closes or
    is gone. Raises `Fatal` where nobody listens there."""
    try:
        async with asyncio.timeout(QMP_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=LINE_LIMIT)
    except (OSError, TimeoutError) as error:
        raise Fatal(DRIVER_FAILED, f"events of {socket}: {error!r}") from error
    try:
        await reader.readline()
        await _execute(reader, writer, "qmp_capabilities", {})
        yield {}
        while line := await reader.readline():
            told = json.loads(line)
            if "event" in told:
                yield told
    except (OSError, ValueError) as error:
        raise Fatal(DRIVER_FAILED, f"events of {socket}: {error!r}") from error
    finally:
        writer.close()


async def _execute(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    command: str,
    arguments: dict[str, Any],
) -> Any:
    request = {"execute": command, "arguments": arguments}
    writer.write(json.dumps(request).encode() + b"\n")
    await writer.drain()
    while line := await reader.readline():
        reply = json.loads(line)
        if "return" in reply:
            return reply["return"]
        if "error" in reply:
            raise Fatal(DRIVER_FAILED, f"{command}: {reply['error'].get('desc')}")
    raise ConnectionResetError(f"the monitor closed on {command}")
