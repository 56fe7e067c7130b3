"""The command line against a gateway on a socket: what it asks, prints and exits with."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from trivet.cli.__main__ import run
from trivet.client import Client
from trivet.contracts.compute.endpoints.images import CRUD as IMAGES
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.image import Image, ImageSpec, ImageStatus
from trivet.contracts.compute.vm import Power
from trivet.contracts.errors import INVALID, NAME_TAKEN, Refused, TrivetError
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.security.endpoints.token_create import ENDPOINT as TOKEN_CREATE
from trivet.contracts.security.endpoints.token_create import TokenCreated
from trivet.contracts.security.identity import Token, TokenStatus
from trivet.runtime.clock import SystemClock, new_id
from trivet.runtime.crud import merge_patch


@dataclass
class Shell:
    """Runs commands as a person would, against one site."""

    site: Any
    address: str
    capsys: Any

    async def __call__(self, *words: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = await asyncio.to_thread(run, words)
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err

    def asked(self, op: str) -> Any:
        """The last request of an operation that reached the services."""
        return [request for name, request, _ in self.site.cloud.calls if name == op][-1]


@pytest.fixture
async def shell(served: Any, monkeypatch: Any, capsys: Any, tmp_path: Path) -> AsyncIterator[Shell]:
    async with served() as (site, address, _):
        monkeypatch.setenv("TRIVET_CONFIG", str(tmp_path / "config.toml"))
        monkeypatch.setenv("TRIVET_SETTINGS", str(tmp_path / "none.toml"))
        monkeypatch.setenv("TRIVET_URL", f"http://{address}")
        monkeypatch.setenv("TRIVET_TOKEN", "admin")
        monkeypatch.setenv("TRIVET_COMPUTE__IMPORT_DIR", str(tmp_path / "import"))
        yield Shell(site, address, capsys)


async def test_a_vm_is_made_shown_listed_edited_and_deleted(shell: Shell) -> None:
    code, out, err = await shell(
        *("vm", "create", "web", "--image", "tiny", "--vcpus", "2", "--memory", "256MiB"),
        *("--disk", "1GiB,replicas=2", "--disk", "2GiB,name=data", "--network", "default"),
        *("--security-group", "web", "--label", "tier=front"),
        *("--set", "placement.strength=prefer"),
    )
    assert (code, err) == (0, "")
    made = shell.asked("vm.create")
    assert (made.spec.vcpus, made.spec.memory_mib, made.spec.image) == (2, 256, "tiny")
    assert [(d.name, d.size_gib, d.replicas) for d in made.spec.disks] == [
        ("root", 1, 2),
        ("data", 2, 1),
    ]
    assert [(n.network, n.security_groups) for n in made.spec.nics] == [("default", ("web",))]
    assert made.spec.placement.strength == "prefer"
    assert made.meta.labels == {"tier": "front"}
    assert yaml.safe_load(out)["name"] == "web"
    _, out, _ = await shell("vm", "list")
    assert out.splitlines()[0].split()[:3] == ["NAME", "PHASE", "POWER"]
    assert out.splitlines()[1].startswith("web")
    _, out, _ = await shell("vm", "show", "web", "-o", "json")
    assert json.loads(out)["status"]["power"] == "stopped"
    code, _, _ = await shell("vm", "edit", "web", "--vcpus", "4", "--if-revision", "1")
    assert code == 0
    assert (shell.asked("vm.edit").spec, shell.asked("vm.edit").revision) == ({"vcpus": 4}, 1)
    code, out, _ = await shell("vm", "delete", "web", "--wait", "5")
    assert (code, out) == (0, "")
    _, out, _ = await shell("vm", "list", "-o", "json")
    assert json.loads(out) == {"items": []}


async def test_a_refusal_is_one_line_with_its_code_and_exit_1(shell: Shell) -> None:
    code, out, err = await shell("vm", "show", "absent")
    assert (code, out) == (1, "")
    assert err.startswith("trivet: resource.not_found: ")
    assert err.count("\n") == 1
    code, _, err = await shell("vm", "create", "web", "--vcpus", "0")
    assert code == 1
    assert "request.malformed" in err
    assert "vcpus" in err


@pytest.mark.parametrize(
    "words",
    [
        ("vm", "explode"),
        ("vm", "show"),
        ("vm", "create", "web", "--vcpus", "two"),
        ("vm", "create", "web", "--memory", "lots"),
        ("vm", "create", "web", "--memory", "1.5KiB"),
        ("vm", "create", "web", "--disk", "1GiB,colour=red"),
        ("vm", "create", "web", "--disk", "1GiB,replicas=9"),
        ("vm", "create", "web", "--set", "vcpus"),
        ("vm", "create", "web", "--spec", "["),
        ("vm", "create", "web", "--spec", "@/absent/file"),
        ("vm", "create", "web", "--label", "x"),
        ("vm", "create", "web", "--security-group", "g"),
        ("vm", "create", "web", "--unknown"),
        ("apply", "-f", "/absent/file"),
    ],
)
async def test_a_mistake_on_the_command_line_exits_2(shell: Shell, words: tuple[str, ...]) -> None:
    code, out, err = await shell(*words)
    assert (code, out) == (2, ""), err
    assert err.startswith("trivet: ")
    assert not shell.site.cloud.calls


async def test_no_token_and_no_gateway_say_what_to_do(shell: Shell, monkeypatch: Any) -> None:
    monkeypatch.delenv("TRIVET_TOKEN")
    code, _, err = await shell("vm", "list")
    assert code == 1
    assert "auth.unauthenticated" in err
    assert "trivet up" in err
    monkeypatch.setenv("TRIVET_URL", "http://127.0.0.1:1")
    code, _, err = await shell("vm", "list")
    assert code == 1
    assert "bus.unavailable" in err


async def test_wait_ends_when_settled_and_the_guest_is_ready(shell: Shell) -> None:
    cloud = shell.site.cloud

    async def get(request: Any, call: Any) -> Any:
        vm = await type(cloud).get(cloud, request, call)
        return cloud._put(vm.with_status(guest_ready=True)) if vm.status.power == "running" else vm

    cloud.bus.broker.listeners[:] = [
        one for one in cloud.bus.broker.listeners if not one.pattern.endswith("vm.get.v1")
    ]
    await cloud.serve(VMS.get, get)
    code, out, _ = await shell("vm", "create", "web", "--image", "tiny", "--disk", "1GiB", "--wait")
    assert code == 0
    assert yaml.safe_load(out)["status"]["guest_ready"] is True


async def test_wait_for_a_guest_that_never_is_ready_exits_1(shell: Shell) -> None:
    code, _, err = await shell(
        "vm", "create", "web", "--image", "tiny", "--disk", "1GiB", "--wait", "0.5"
    )
    assert code == 1
    assert "bus.timeout: vm web runs, and its guest has not said READY after 0.5 s" in err
    assert "`trivet vm log web` shows what its console says" in err


async def test_wait_that_is_over_exits_1_and_says_how_it_is(shell: Shell) -> None:
    shell.site.cloud.settles = False
    code, _, err = await shell("vm", "create", "web", "--wait", "0.3")
    assert code == 1
    assert "bus.timeout: vm web is pending after 0.3 s" in err


async def test_wait_on_what_failed_exits_1_with_its_reasons(shell: Shell) -> None:
    cloud = shell.site.cloud
    await shell("vm", "create", "web")
    condition = {"type": "Placed", "status": "false", "reason": "NoRoom", "message": "no node fits"}
    vm = cloud.vms["default", "web"]
    cloud._put(vm.with_status(phase=Phase.FAILED, observed_generation=1, conditions=[condition]))
    code, _, err = await shell("vm", "start", "web", "--wait")
    assert code == 1
    assert "resource.failed: vm web failed: NoRoom: no node fits" in err


async def test_health_is_shown_where_it_is_bad_too(shell: Shell) -> None:
    code, out, err = await shell("health")
    assert (code, err) == (1, "")
    assert yaml.safe_load(out)["services"]["storage"]["reachable"] is False


async def test_version_tells_both_sides(shell: Shell, monkeypatch: Any) -> None:
    code, out, _ = await shell("version", "-o", "json")
    assert code == 0
    assert json.loads(out)["client"] == json.loads(out)["gateway"]
    monkeypatch.setenv("TRIVET_URL", "http://127.0.0.1:1")
    code, out, _ = await shell("version")
    assert code == 0
    assert "not reachable" in out


async def test_an_action_takes_its_options(shell: Shell) -> None:
    await shell("vm", "create", "web")
    code, _, _ = await shell("vm", "stop", "web", "--force", "--grace-s", "7")
    assert code == 0
    assert (shell.asked("vm.stop").force, shell.asked("vm.stop").grace_s) == (True, 7)


async def test_projects(shell: Shell) -> None:
    await shell("vm", "create", "web", "--project", "red")
    await shell("vm", "create", "web")
    assert set(shell.site.cloud.vms) == {("red", "web"), ("default", "web")}
    _, out, _ = await shell("vm", "list", "--all-projects")
    assert out.splitlines()[0].startswith("PROJECT")
    _, out, _ = await shell("vm", "list", "-p", "red", "-o", "json")
    assert [v["meta"]["project"] for v in json.loads(out)["items"]] == ["red"]


async def test_a_token_shows_its_secret_once(shell: Shell) -> None:
    async def create(request: Any, call: Any) -> TokenCreated:
        meta = Meta(id=new_id("token"), name=request.meta.name, created_at=SystemClock().now())
        token = Token(meta=meta, spec=request.spec, status=TokenStatus())
        return TokenCreated(token=token, secret="trv-secret")

    await shell.site.cloud.serve(TOKEN_CREATE, create)
    code, out, err = await shell("token", "create", "laptop", "--user", "admin")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out)["secret"] == "trv-secret"


async def test_apply_shows_the_difference_and_makes_it_so(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(
        "kind: Vm\nmeta: {name: a}\nspec: {vcpus: 2}\n---\nkind: Vm\nmeta: {name: b}\nspec: {}\n"
    )
    _, out, _ = await shell("apply", "-f", str(file), "--dry-run")
    told = "2 created, 0 changed, 0 as they were"
    assert out.splitlines() == ["+ vm a", "+ vm b", f"would be: {told}"]
    assert not shell.site.cloud.vms
    await shell("apply", "-f", str(file))
    assert set(shell.site.cloud.vms) == {("default", "a"), ("default", "b")}
    _, out, _ = await shell("apply", "-f", str(file))
    assert out.splitlines()[:2] == ["= vm a", "= vm b"]
    file.write_text("kind: Vm\nmeta: {name: a, labels: {x: y}}\nspec: {vcpus: 3}\n")
    code, out, _ = await shell("apply", "-f", str(file))
    assert code == 0
    assert "    vcpus: 2 -> 3" in out.splitlines()
    assert shell.site.cloud.vms["default", "a"].spec.vcpus == 3


@dataclass
class Images:
    """An image service that takes what is in the import folder, and while `hold` is still at it."""

    folder: Path
    made: dict[str, Image]
    fails: bool = False
    hold: bool = False
    refuse: TrivetError | None = None

    def end(self, name: str) -> None:
        """The import ends: what was there for it alone goes."""
        image = self.made[name]
        phase = Phase.FAILED if self.fails else Phase.READY
        self.made[name] = image.with_status(phase=phase, observed_generation=image.meta.generation)
        file = self.folder / image.spec.source.file
        if file.name.startswith("once-"):
            file.unlink(missing_ok=True)

    async def create(self, request: Any, call: Any) -> Image:
        if self.refuse is not None:
            raise self.refuse
        if request.meta.name in self.made:
            raise Refused(NAME_TAKEN, "the name is taken")
        data = (self.folder / request.spec.source.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == request.spec.sha256
        meta = Meta(
            id=new_id("image"),
            name=request.meta.name,
            project="default",
            created_at=SystemClock().now(),
        )
        image = Image(meta=meta, spec=request.spec, status=ImageStatus())
        self.made[request.meta.name] = image
        return image

    async def edit(self, request: Any, call: Any) -> Image:
        image = self.made[request.name]
        merged = merge_patch(image.spec.model_dump(mode="json"), request.spec)
        self.made[request.name] = image.with_spec(ImageSpec.model_validate(merged))
        return self.made[request.name]

    async def get(self, request: Any, call: Any) -> Image:
        if not self.hold and not self.made[request.name].settled():
            self.end(request.name)
        return self.made[request.name]


@pytest.fixture
async def images(shell: Shell, tmp_path: Path) -> Images:
    found = Images(tmp_path / "import", {})
    found.folder.mkdir()
    await shell.site.cloud.serve(IMAGES.create, found.create)
    await shell.site.cloud.serve(IMAGES.get, found.get)
    await shell.site.cloud.serve(IMAGES.edit, found.edit)
    return found


async def test_a_local_image_goes_through_the_import_folder(
    shell: Shell, images: Images, tmp_path: Path
) -> None:
    file = tmp_path / "my disk (1).raw"
    file.write_bytes(b"disk")
    code, _, err = await shell("image", "import", "mine", str(file))
    assert code == 0, err
    assert images.made["mine"].spec.sha256 == hashlib.sha256(b"disk").hexdigest()
    assert list(images.folder.iterdir()) == []
    code, _, err = await shell("image", "import", "mine", str(file))
    assert code == 1
    assert NAME_TAKEN.value in err
    assert list(images.folder.iterdir()) == []


async def test_a_copy_outlives_the_wait_and_not_the_import(
    shell: Shell, images: Images, tmp_path: Path
) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"disk")
    images.hold = True
    code, _, err = await shell("image", "import", "slow", str(file), "--wait", "0.3")
    assert code == 1
    assert "bus.timeout: image slow is pending after 0.3 s" in err
    (copy,) = images.folder.iterdir()
    assert copy.name == images.made["slow"].spec.source.file
    images.end("slow")
    assert list(images.folder.iterdir()) == []


async def test_a_copy_that_nobody_takes_is_removed(
    shell: Shell, images: Images, tmp_path: Path
) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"disk")
    images.refuse = Refused(INVALID, "no")
    code, _, _ = await shell("image", "import", "mine", str(file))
    assert (code, list(images.folder.iterdir())) == (1, [])


async def test_an_import_that_fails_says_why(shell: Shell, images: Images, tmp_path: Path) -> None:
    file = tmp_path / "disk.raw"
    file.write_bytes(b"disk")
    images.fails = True
    code, _, err = await shell("image", "import", "mine", str(file))
    assert code == 1
    assert "resource.failed: image mine failed" in err
    assert list(images.folder.iterdir()) == []


async def test_an_image_from_a_url_needs_no_folder(shell: Shell, images: Images) -> None:
    async def create(request: Any, call: Any) -> Image:
        meta = Meta(id=new_id("image"), name="far", created_at=SystemClock().now())
        return Image(meta=meta, spec=request.spec, status=ImageStatus())

    shell.site.cloud.bus.broker.listeners[:] = [
        one
        for one in shell.site.cloud.bus.broker.listeners
        if not one.pattern.endswith("image.create.v1")
    ]
    await shell.site.cloud.serve(IMAGES.create, create)
    address = "https://example.org/disk.qcow2"
    code, _, err = await shell("image", "import", "far", address, "--wait", "0")
    assert code == 0, err
    assert shell.asked("image.create").spec.source.url == "https://example.org/disk.qcow2"


def built(out: Path, work: Path, progress: Any) -> Path:
    """Stands in for the build of the tiny guest."""
    out.write_bytes(b"tiny")
    return out


async def test_build_tiny_twice_is_success(
    shell: Shell, images: Images, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("trivet.host.tiny_image.build", built)
    monkeypatch.setenv("TRIVET_STATE_DIR", str(tmp_path))
    for _ in range(2):
        code, out, err = await shell("image", "build-tiny")
        assert code == 0, err
        assert yaml.safe_load(out)["phase"] == "ready"
        assert list(images.folder.iterdir()) == []


async def test_build_tiny_waits_for_an_import_that_is_under_way(
    shell: Shell, images: Images, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("trivet.host.tiny_image.build", built)
    monkeypatch.setenv("TRIVET_STATE_DIR", str(tmp_path))
    images.hold = True
    code, _, err = await shell("image", "build-tiny", "--wait", "0.3")
    assert (code, "is pending" in err) == (1, True), err
    (copy,) = images.folder.iterdir()
    images.hold = False
    code, out, err = await shell("image", "build-tiny")
    assert code == 0, err
    assert yaml.safe_load(out)["phase"] == "ready"
    assert images.made["tiny"].spec.source.file == copy.name
    assert list(images.folder.iterdir()) == []


async def test_build_tiny_tries_anew_what_failed(
    shell: Shell, images: Images, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr("trivet.host.tiny_image.build", built)
    monkeypatch.setenv("TRIVET_STATE_DIR", str(tmp_path))
    images.fails = True
    code, _, err = await shell("image", "build-tiny")
    assert (code, "image tiny failed" in err) == (1, True), err
    images.fails = False
    code, out, err = await shell("image", "build-tiny")
    assert code == 0, err
    assert yaml.safe_load(out)["phase"] == "ready"
    assert images.made["tiny"].meta.generation == 2


async def test_the_client_finds_operations_by_plural_and_verb(shell: Shell) -> None:
    def work() -> None:
        with Client(f"http://{shell.address}", "admin", project="red") as client:
            made = client.vms.create("web", spec={"vcpus": 2})
            assert made.meta.project == "red"
            assert client.vms.get("web").spec.vcpus == 2
            assert client.vms.start("web", wait_s=5).status.power is Power.RUNNING
            assert [v.meta.name for v in client.vms.list(project=None).items] == ["web"]
            with pytest.raises(TrivetError) as caught:
                client.vms.create("web", spec={})
            assert caught.value.code is NAME_TAKEN
            with pytest.raises(AttributeError):
                client.spoons  # noqa: B018
            with pytest.raises(AttributeError):
                client.vms.bend("web")

    await asyncio.to_thread(work)


async def test_the_client_follows_events_over_a_break(served: Any) -> None:
    async with served(event_keepalive_s=0.05, identity_cache_s=0.05) as (site, address, _):
        for _ in range(3):
            await site.cloud.emit("started")

        def work() -> list[int]:
            with Client(f"http://{address}", "admin") as client:
                events = client.events("compute.>", since=2)
                got = [next(events).seq, next(events).seq]
                asyncio.run_coroutine_threadsafe(site.cloud.emit("stopped"), loop).result()
                got.append(next(events).seq)
                events.close()  # type: ignore[attr-defined]
                return got

        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(work) == [2, 3, 4]
