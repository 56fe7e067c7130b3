"""Handlers at work: nothing that was accepted waits for a worker that has gone."""

import asyncio

from trivet.runtime.bus import Message
from trivet.runtime.handlers import Handlers


async def test_what_comes_just_as_the_last_worker_ends_is_handled() -> None:
    loop = asyncio.get_running_loop()
    second = asyncio.Event()

    async def echo(message: Message) -> bytes:
        return message.data

    handlers = Handlers(echo, bound=1)

    async def reply_second(data: bytes) -> None:
        second.set()

    async def reply_first(data: bytes) -> None:
        # In the loop's next round: the worker has ended by then, its callbacks have not run.
        loop.call_soon(handlers.accept, Message("s", b"second", {}), None, reply_second)

    handlers.accept(Message("s", b"first", {}), None, reply_first)
    await asyncio.wait_for(second.wait(), 5)
    await handlers.drained()
