"""The security service on the in-memory bus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trivet.security.bootstrap import bootstrap
from trivet.testing.fakes import firewall
from trivet.testing.harness import Harness
from trivet.testing.security_world import FIRST, World


@pytest.fixture
async def bare(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Nothing started; the token file is there. A parameter is how seldom it looks (seconds)."""
    token_file = tmp_path / "first-token"
    token_file.write_text(FIRST + "\n")
    token_file.chmod(0o600)
    security = {
        "firewall": "fake-firewall",
        "look_s": getattr(request, "param", 0.2),
        "bootstrap_token_file": token_file,
    }
    async with Harness(tmp_path, plugins=(firewall,), security=security) as harness:
        world = World(harness, token_file, bootstrap)
        await world.network()
        yield world


@pytest.fixture
async def world(bare: World) -> World:
    await bare.start()
    await bare.first_admin()
    return bare
