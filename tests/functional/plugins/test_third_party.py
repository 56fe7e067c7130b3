"""A third party's plugin: installed, found, put through its suite, used when settings name it."""

import importlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.endpoint import ListRequest
from trivet.contracts.storage.endpoints.disks import CRUD as DISKS
from trivet.runtime.plugins import Plugins
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes import plugin as fakes
from trivet.testing.harness import Harness
from trivet.testing.suites.disk_inspector import DiskInspectorSuite

TOY = Path(__file__).parents[2] / "toy"
HOOK = "trivet_disk_inspectors"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The toy distribution, installed into a folder of its own on the path."""
    target = tmp_path_factory.mktemp("toy")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(TOY)]
    subprocess.run(command, check=True)
    sys.path.append(str(target))
    importlib.invalidate_caches()
    yield target
    sys.path.remove(str(target))


async def choose(folder: Path, wanted: str, config: dict[str, Any]) -> Any:
    def context(name: str) -> DriverContext:
        return DriverContext("n1", folder, folder)

    return await Plugins.discover().choose(HOOK, wanted, context, {"toy": config})


class TestToy(DiskInspectorSuite):
    """The suite, bound to the third party's driver with one fixture."""

    @pytest.fixture
    async def driver(self, installed: Path, tmp_path: Path) -> AsyncIterator[Any]:
        made = await choose(tmp_path, "toy", {"disks": {"A": 10**9, "B": 10**9}})
        yield made
        await made.close()


async def test_the_suite_fails_a_driver_that_breaks_the_law(
    installed: Path, tmp_path: Path
) -> None:
    config = {"disks": {"A": 10**9, "B": 10**9}, "shuffles": True}
    driver = await choose(tmp_path, "toy", config)
    with pytest.raises(AssertionError):
        await DiskInspectorSuite().test_looking_changes_nothing(driver)


def test_it_is_found_by_its_entry_point_in_a_process_of_its_own(installed: Path) -> None:
    script = (
        "import asyncio, json\n"
        "from trivet.runtime.plugins import Plugins\n"
        f"found = asyncio.run(Plugins.discover().report('{HOOK}'))\n"
        "print(json.dumps({f.name: f.plugin for f in found}))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/usr/sbin:/bin:/sbin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout)["toy"] == "toy"


async def test_the_service_uses_it_when_settings_name_it(installed: Path, tmp_path: Path) -> None:
    toy = importlib.import_module("toy_inspector")
    configs = {"toy": {"disks": {"sn-7": 5 * 10**9}}}
    names = {"inspector": "toy", "engine": "fake-engine"}
    plugins = (toy, fakes)
    async with Harness(tmp_path, plugins=plugins, configs=configs, storage=names) as harness:
        service = await harness.start("storage", bootstrap)
        disks = service.collection(DISKS.kind)
        assert await disks.wait_for(disks.kind.key(None, "n1-sn-7"), bool, 10), disks.list()
        page = await harness.call(DISKS.list, ListRequest())
        assert [d.status.facts.serial for d in page.items] == ["sn-7"]
