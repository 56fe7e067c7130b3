"""The fake firewall keeps the law of firewalls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.testing.fakes.firewall import FakeFirewall, FakeFirewallConfig
from trivet.testing.packets import Packet
from trivet.testing.suites.firewall import FirewallSuite
from trivet.testing.suites.firewall_rules import FirewallRulesSuite, sent  # noqa: F401


class _Judged:
    def __init__(self, firewall: FakeFirewall) -> None:
        self._firewall = firewall

    async def passes(self, packet: Packet, *, expected: bool) -> bool:
        return self._firewall.judge(packet).passed

    async def verdicts(self, packets: Sequence[Packet], expected: Sequence[bool]) -> list[bool]:
        return [self._firewall.judge(packet).passed for packet in packets]


class TestFakeFirewall(FirewallSuite, FirewallRulesSuite):
    @pytest.fixture
    async def driver(self, tmp_path: Path) -> FakeFirewall:
        driver = FakeFirewall(DriverContext("n1", tmp_path, tmp_path), FakeFirewallConfig())
        await driver.open()
        return driver

    @pytest.fixture
    def wire(self, driver: FakeFirewall) -> _Judged:
        return _Judged(driver)
