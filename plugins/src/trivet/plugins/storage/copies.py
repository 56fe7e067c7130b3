"""Copies to members of a graph, and the memory of what was written: jobs and bitmaps in QEMU.

A copy is a backup job from the quorum, which keeps the order with the guest's writes, to a second
connection of the member's server. What is still to be copied is a bitmap of its own (`todo.N`, N
the member's number), made once by the copy's reason, so that a copy that failed goes on where it
was. Zeroes become holes where the volume is thin.

What was written since a checkpoint is in the bitmaps `changes.K`: the newest is begun before the
flush that lets the older ones be forgotten.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Any

from trivet.contracts.errors import DRIVER_FAILED, Fatal
from trivet.contracts.storage.replication import Copy, CopyState, Extent
from trivet.contracts.storage.volume import Missing
from trivet.plugins.storage.members import GraphRecord, Member
from trivet.plugins.storage.nbd_client import nbd
from trivet.plugins.storage.nbdkit import graph_export
from trivet.plugins.storage.qmp import ask, ask_all
from trivet.plugins.storage.slots import QUORUM, copy_nodes
from trivet.plugins.storage.sockets import Socket

CHANGES, TODO, SCRATCH = "changes", "todo", "scratch"
JOB = re.compile(r"^copy-(?P<missing>[a-z]+)\.(?P<number>\d+)$")
FLUSH_S = 30.0
MARK_S = 60.0
END_S = 10.0
LOOK_S = 0.005
WORKERS = 16


async def begin_changes(graph: Socket, number: int = 0) -> None:
    """Begin to remember what is written."""
    await ask(graph.monitor, "block-dirty-bitmap-add", node=QUORUM, name=f"{CHANGES}.{number}")


def changed_bytes(quorum: dict[str, Any]) -> int:
    """What was written since the last checkpoint, by the bitmaps on the quorum."""
    bitmaps = quorum.get("dirty-bitmaps", ())
    return max((int(b["count"]) for b in bitmaps if _number(CHANGES, b.get("name", ""))), default=0)


async def flush(graph: Socket) -> None:
    """Have all that was answered so far on the disks of all members."""
    server = {"type": "unix", "path": str(graph.path)}
    async with nbd(server, graph_export(graph.volume, graph.epoch), timeout_s=FLUSH_S) as client:
        await client.flush()


async def forget_changes(graph: Socket, older: Iterable[str]) -> None:
    """Forget these memories of changes."""
    for name in older:
        await ask(graph.monitor, "block-dirty-bitmap-remove", node=QUORUM, name=name)


async def memories(graph: Socket) -> list[str]:
    """The names of the memories of changes, the oldest first."""
    names = [b for b in await _bitmaps(graph) if _number(CHANGES, b)]
    return sorted(names, key=lambda name: int(name.rpartition(".")[2]))


async def begin_next_memory(graph: Socket) -> list[str]:
    """Begin another memory of changes; those that were there before."""
    older = await memories(graph)
    await begin_changes(graph, int(older[-1].rpartition(".")[2]) + 1 if older else 0)
    return older


async def begin_copy(
    graph: Socket,
    record: GraphRecord,
    number: int,
    missing: Missing,
    extents: Collection[Extent],
    bytes_per_s: int,
) -> None:
    """Copy to the member of that number: what is `missing`, or, where extents say so, those."""
    job, todo = f"copy-{missing}.{number}", f"{TODO}.{number}"
    for found in await ask(graph.monitor, "query-jobs"):
        if _number("copy", found["id"]) != str(number):
            continue
        if found["status"] != "concluded":
            speed = {"device": found["id"], "speed": bytes_per_s}
            await ask(graph.monitor, "block-job-set-speed", **speed)
            return
        if not found.get("error"):
            return
        await _forget_job(graph, found["id"], number)
    if todo not in await _bitmaps(graph):
        await _make_todo(graph, todo, missing, extents, record.size_bytes)
    await _forget_target(graph, number)
    member = record.members[number]
    try:
        for node in copy_nodes(
            number, member.server, member.export, record.size_bytes, thin=record.thin
        ):
            await ask(graph.monitor, "blockdev-add", **node)
        await ask(graph.monitor, "blockdev-backup", **_backup(job, number, todo, bytes_per_s))
    except BaseException:
        await _forget_target(graph, number)
        raise


def _backup(job: str, number: int, todo: str, bytes_per_s: int) -> dict[str, Any]:
    return {
        "job-id": job,
        "device": QUORUM,
        "target": f"c.{number}",
        "sync": "bitmap",
        "bitmap": todo,
        "bitmap-mode": "always",
        "speed": bytes_per_s,
        "filter-node-name": f"f.{number}",
        "on-target-error": "report",
        "auto-dismiss": False,
        "x-perf": {"max-workers": WORKERS, "use-copy-range": False},
    }


async def all_copies(graph: Socket, record: GraphRecord) -> list[Copy]:
    """The copies of a graph; none of one that does not answer."""
    try:
        jobs = await ask(graph.monitor, "query-jobs")
    except Fatal:
        return []
    found = []
    for job in jobs:
        match = JOB.match(job["id"])
        member = record.members.get(int(match["number"])) if match else None
        if match and member:
            found.append(_copy_of(graph, member, Missing(match["missing"]), job))
    return found


def _copy_of(graph: Socket, member: Member, missing: Missing, job: dict[str, Any]) -> Copy:
    state = CopyState.RUNNING
    if job["status"] == "concluded":
        state = CopyState.FAILED if job.get("error") else CopyState.DONE
    return Copy(
        volume=graph.volume,
        node=member.node,
        missing=missing,
        state=state,
        done_bytes=job["current-progress"],
        total_bytes=job["total-progress"],
        error=job.get("error", ""),
    )


async def end_copies(graph: Socket, numbers: Collection[int]) -> None:
    """Stop the copies to these numbers, and forget them."""
    for job in await ask(graph.monitor, "query-jobs"):
        number = _number("copy", job["id"])
        if number and int(number) in numbers:
            if job["status"] != "concluded":
                with suppress(Fatal):  # it may have ended meanwhile
                    await ask(graph.monitor, "block-job-cancel", device=job["id"], force=True)
                await _concluded(graph, job["id"])
            await _forget_job(graph, job["id"], int(number))
    for name in await _bitmaps(graph):
        number = _number(TODO, name)
        if number and int(number) in numbers:
            await ask(graph.monitor, "block-dirty-bitmap-remove", node=QUORUM, name=name)


async def _concluded(graph: Socket, job: str) -> None:
    for _ in range(int(END_S / LOOK_S)):
        jobs = {j["id"]: j["status"] for j in await ask(graph.monitor, "query-jobs")}
        if jobs.get(job, "concluded") == "concluded":
            return
        await asyncio.sleep(LOOK_S)
    raise Fatal(DRIVER_FAILED, f"{job} of {graph.volume} does not end")


async def _forget_job(graph: Socket, job: str, number: int) -> None:
    await ask(graph.monitor, "job-dismiss", id=job)
    await _forget_target(graph, number)


async def _forget_target(graph: Socket, number: int) -> None:
    for name in (f"c.{number}", f"d.{number}"):
        with suppress(Fatal):  # it is not there
            await ask(graph.monitor, "blockdev-del", **{"node-name": name})


async def _make_todo(
    graph: Socket, todo: str, missing: Missing, extents: Collection[Extent], size_bytes: int
) -> None:
    """The bitmap of what is to be copied. It is not written to by guests: members have that."""
    new = {"node": QUORUM, "name": todo, "disabled": True}
    if missing is Missing.CHANGES:
        await _add_merged(graph, new, list(await memories(graph)))
        return
    async with asyncio.timeout(MARK_S):
        await _mark(graph, extents, size_bytes)
        try:
            await _add_merged(graph, new, [{"node": SCRATCH, "name": TODO}])
        finally:
            await _forget_scratch(graph)


async def _add_merged(graph: Socket, new: dict[str, Any], sources: list[Any]) -> None:
    """Add a bitmap with what these have, in one step."""
    merge = {"node": new["node"], "target": new["name"], "bitmaps": sources}
    actions = [
        {"type": "block-dirty-bitmap-add", "data": new},
        {"type": "block-dirty-bitmap-merge", "data": merge},
    ]
    await ask(graph.monitor, "transaction", actions=actions)


async def _mark(graph: Socket, extents: Collection[Extent], size_bytes: int) -> None:
    """A scratch node with a bitmap that has these extents: those that zeroes were written to."""
    await _forget_scratch(graph)
    node = {"driver": "null-co", "node-name": SCRATCH, "size": size_bytes, "read-zeroes": True}
    export = {"type": "nbd", "id": SCRATCH, "node-name": SCRATCH, "name": SCRATCH}
    await ask_all(
        graph.monitor,
        ("blockdev-add", node),
        ("block-dirty-bitmap-add", {"node": SCRATCH, "name": TODO}),
        ("block-export-add", {**export, "writable": True}),
    )
    server = {"type": "unix", "path": str(graph.path)}
    async with nbd(server, SCRATCH, timeout_s=MARK_S) as client:
        for extent in extents:
            await client.zero(extent.offset, extent.length)


async def _forget_scratch(graph: Socket) -> None:
    with suppress(Fatal):  # it is not there
        await ask(graph.monitor, "block-export-del", id=SCRATCH, mode="hard")
    for _ in range(int(END_S / LOOK_S)):
        if all(e["id"] != SCRATCH for e in await ask(graph.monitor, "query-block-exports")):
            break
        await asyncio.sleep(LOOK_S)
    with suppress(Fatal):
        await ask(graph.monitor, "blockdev-del", **{"node-name": SCRATCH})


async def _bitmaps(graph: Socket) -> list[str]:
    nodes = await ask(graph.monitor, "query-named-block-nodes", flat=True)
    (quorum,) = (node for node in nodes if node["node-name"] == QUORUM)
    return [b["name"] for b in quorum.get("dirty-bitmaps", ()) if b.get("name")]


def _number(kind: str, name: str) -> str:
    """The number in `kind.N` or `kind-anything.N`; '' for any other name."""
    begin, _, number = name.rpartition(".")
    return number if begin.partition("-")[0] == kind and number.isdecimal() else ""
