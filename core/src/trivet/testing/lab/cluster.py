"""The lab: a cluster of several real nodes on this machine, and everything that can befall them.

Each node is a machine of its own as far as Trivet can see (`machine_space`), cabled to the others
by a switch (`switch`), and runs the product's own supervisor, bus and services, configured as the
members of any cluster are (`trivet.host.founding`). Every command may be repeated; what was made
is found again by names that follow from the lab's folder, so that `down` leaves nothing behind
even where the one who called `up` died in the middle.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trivet.client import Client
from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.host import caller, environment, machine, readiness, takeaway, traces
from trivet.host.checkout import checkout, source_version
from trivet.host.defaults import ensure_defaults, file_members, made_defaults
from trivet.host.failure import failed
from trivet.host.founding import found
from trivet.host.layout import Layout
from trivet.host.whole_files import write_whole
from trivet.plugins.compute import cpu_groups
from trivet.testing.lab import clocks, disks
from trivet.testing.lab.plan import NETS, LabPlan, load_plan
from trivet.testing.lab.switch import HOST, Drop, Switch, free_net, namespace_exists
from trivet.testing.lab.view import LabView, Say

DEFAULT_ROOT = Path("/var/lib/trivet-lab")
CLUSTER = "lab"


class Lab(LabView):
    """The lab under a root folder. Made by `create`, found again by `find`."""

    def __init__(self, plan: LabPlan) -> None:
        super().__init__(plan)
        self.switch = Switch(plan)

    @classmethod
    def create(
        cls, root: Path, nodes: int, *, disks: int = 0, ssd: int = 0, witness: bool = False
    ) -> Lab:
        """The lab under `root` as it is asked for; raises where there is another one."""
        net = free_net(sum(Layout(root).prefix.encode()) % 256)
        plan = LabPlan(root=root, nodes=nodes, disks=disks, ssd=ssd, witness=witness, net=net)
        there = load_plan(root)
        if there is None:
            root.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_whole(plan.file, plan.model_dump_json(indent=1).encode(), 0o644)
            return cls(plan)
        if there != plan.model_copy(update={"net": there.net}):
            detail = f"there is another lab under {root}: {', '.join(there.names)}"
            raise failed(detail, hint="`lab down` removes it")
        return cls(there)

    @classmethod
    def find(cls, root: Path) -> Lab:
        """The lab that is there. Raises `Refused(NOT_FOUND)`."""
        plan = load_plan(root)
        if plan is None:
            raise Refused(NOT_FOUND, f"there is no lab under {root}", hint="`lab up` makes one")
        return cls(plan)

    # --- all of it ---------------------------------------------------------------------------

    def up(self, say: Say, env: Mapping[str, str] = os.environ) -> None:
        """Start what does not run; returns when every node does its work."""
        os.umask(0o022)
        base = self.plan.base
        folder = checkout()
        version = source_version(folder)
        machine.make_folders(base)
        machine.remember_sysctls(base)
        user = machine.ensure_user(base)
        machine.ensure_libvirt_user(base)
        self._install(folder, version, say)
        say("setting the nodes up")
        self._found(user)
        self.switch.make()
        say(f"starting {', '.join(self.plan.names)}")
        self._each(self.start, self.plan.names)
        self.wait_ready(self.plan.names, say)
        token = self.token()
        if not made_defaults(base):
            first = self.settings(self.plan.workers[0])
            for name in ensure_defaults(base, first, token, self._pool_members(token)):
                say(f"made {name}")
        urls = [readiness.gateway_url(self.settings(name)) for name in self.plan.workers]
        caller.write(base, caller.client_file(base, env), urls[0], token, urls[1:])

    def _install(self, folder: Path, version: str, say: Say) -> None:
        """Bring the programs of all nodes to the checkout's version, while no node runs them."""
        base = self.plan.base
        if environment.installed_version(base) == version:
            return
        if any(self.machine(name).pid is not None for name in self.plan.names):
            say("the nodes run other code than the checkout's: kill them all, and up, to renew it")
            return
        say("installing the services")
        environment.install(base, folder, version)

    def down(self, say: Say) -> None:
        """Remove the lab and every trace of it."""
        say("ending the nodes")
        self._each(self.kill, self.plan.names)
        self._remove_rest(say)

    def _remove_rest(self, say: Say) -> None:
        for name in self.plan.names:
            for disk in disks.disks_of(self.plan, name):
                disks.detach(disk)
            self._detach_loops(self.plan.layout(name))
            takeaway.undo_folders(self.plan.layout(name))
            cpu_groups.remove(self.plan.layout(name).prefix)
            shutil.rmtree(self.plan.root / name, ignore_errors=True)
        takeaway.purge(self.plan.base, say)
        shutil.rmtree(self.plan.root)

    def _detach_loops(self, layout: Layout) -> None:
        for device, file in traces.loops().items():
            if layout.owns(file):
                subprocess.run(("losetup", "--detach", device), check=False)

    def _found(self, user: int) -> None:
        """Make the nodes' folders, and make them the members of a cluster."""
        hosts = ["127.0.0.1 localhost", "::1 localhost"]
        hosts += [f"{self.plan.address(name)} {name}" for name in self.plan.names]
        for name in self.plan.names:
            root = self.plan.root / name
            (root / "etc").mkdir(parents=True, exist_ok=True)
            (root / "etc/hosts").write_text("\n".join(hosts) + "\n")
            if not (root / "opt").is_symlink():
                (root / "opt").symlink_to(self.plan.root / "opt")
        places = [self.plan.place(name) for name in self.plan.names]
        found(CLUSTER, places, self.plan.base.tls, user)
        clocks.make_library(self.plan.base)
        for name in self.plan.names:
            layout = self.plan.layout(name)
            clocks.set_ahead(layout, clocks.ahead(layout))
            _set_disks(layout)

    # --- a node ------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Switch a node on; returns when it has begun to boot."""
        space = self.machine(name)
        if space.pid is None:
            space.end()
            for disk in disks.disks_of(self.plan, name):
                disks.attach(disk)
            self.switch.plug(name)
            space.start()

    def kill(self, name: str) -> None:
        """Cut a node's power: it falls silent in one moment, and nothing of it runs any more.
        Nothing that it had not written to its disks gets there, and a disk that was slow or
        stuck is so no more."""
        self.switch.silence(name)
        with disks.without_power(disks.disks_of(self.plan, name)):
            self.machine(name).end()
        self.switch.unplug(name)

    def disk(self, name: str, named: str) -> disks.Disk:
        """A disk of a node (`d1`), for the faults of `trivet.testing.lab.disks`."""
        return disks.disk_of(self.plan, name, named)

    def pause(self, name: str) -> None:
        """Let all processes of a node hang; its kernel still acknowledges what is sent to it."""
        self.machine(name).pause()

    def resume(self, name: str) -> None:
        """Let a paused node go on."""
        self.machine(name).resume()

    def cut(
        self, name: str, others: Iterable[str] = (), nets: Iterable[str] = NETS, *, one_way: bool
    ) -> None:
        """Cut a node off `others` (none: off all, this machine too). With `one_way` it hears
        nothing of them any more, and they still hear it."""
        drops = []
        for net in nets:
            rest = [*self.plan.names, *([HOST] if net == "mgmt" else [])]
            for other in others or [o for o in rest if o != name]:
                drops.append(Drop(net, other, name))
                if not one_way:
                    drops.append(Drop(net, name, other))
        self.switch.cut(drops)

    def clock(self, name: str, seconds: int) -> None:
        """Set a node's wall clock so many seconds ahead of this machine's, or behind it."""
        clocks.set_ahead(self.plan.layout(name), seconds)

    def heal(self) -> None:
        """Let everybody reach everybody again."""
        self.switch.heal()

    def run(
        self, name: str, *argv: str, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a node; what it said and how it ended."""
        command, env = self.entering(name, argv)
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def entering(self, name: str, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """The command line and environment that run `argv` in a node, with Trivet's own
        programs at hand."""
        path = f"{self.plan.layout(name).venv / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
        return self.machine(name).enter(argv, {**self.client_env(name), "PATH": path})

    def _pool_members(self, token: str) -> list[dict[str, Any]]:
        """What the default pool is made of: all disks of all nodes, or a file on each."""
        plan = self.plan
        if not plan.disks:
            free_bytes = shutil.disk_usage(plan.root).free // len(plan.workers)
            return file_members(plan.workers, free_bytes)
        url = readiness.gateway_url(self.settings(self.alive()))
        members = []
        with Client(url, token, plan.base.ca_file) as client:
            for name in plan.workers:
                named = [f"{name}-{disk.name}" for disk in disks.disks_of(plan, name)]
                for disk in named:
                    client.disks.edit(disk, spec={"role": "data"})
                members.append({"node": name, "disks": named})
        return members

    def _each(self, act: Callable[[str], None], names: Sequence[str]) -> None:
        """Do something to several nodes at once. Raises the first failure."""
        with ThreadPoolExecutor(len(names)) as pool:
            for done in [pool.submit(act, name) for name in names]:
                done.result()

    def __repr__(self) -> str:
        on = [n for n in self.plan.names if namespace_exists(self.plan.namespace(n))]
        return f"<Lab {self.plan.root} {' '.join(on) or 'off'}>"


def _set_disks(layout: Layout) -> None:
    """Have a node take its folder of links for its disks, and none of the machine's."""
    text = layout.settings_file.read_text()
    section = f"\n[plugins.sysfs-disks]\nlinks = {json.dumps(str(disks.links_of(layout)))}\n"
    if section not in text:
        write_whole(layout.settings_file, (text + section).encode(), 0o644)
