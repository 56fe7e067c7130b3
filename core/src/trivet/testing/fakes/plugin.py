"""All fakes as one plugin: settings can name them, `auto` never takes them."""

from __future__ import annotations

from trivet.contracts.hookspecs import hookimpl
from trivet.testing.fakes.alarm_sink import FakeAlarmSink
from trivet.testing.fakes.dhcp import FakeDhcp
from trivet.testing.fakes.disk_inspector import FakeDiskInspector
from trivet.testing.fakes.firewall import FakeFirewall
from trivet.testing.fakes.gateway import FakeGateway
from trivet.testing.fakes.hypervisor import FakeHypervisor
from trivet.testing.fakes.switch import FakeSwitch
from trivet.testing.fakes.volume_engine import FakeVolumeEngine


@hookimpl
def trivet_hypervisor_drivers() -> list[type[FakeHypervisor]]:
    """Guests that are only state."""
    return [FakeHypervisor]


@hookimpl
def trivet_volume_engines() -> list[type[FakeVolumeEngine]]:
    """Replicas in memory."""
    return [FakeVolumeEngine]


@hookimpl
def trivet_disk_inspectors() -> list[type[FakeDiskInspector]]:
    """Disks from a list."""
    return [FakeDiskInspector]


@hookimpl
def trivet_switch_drivers() -> list[type[FakeSwitch]]:
    """A switch that says where a frame would go."""
    return [FakeSwitch]


@hookimpl
def trivet_gateway_drivers() -> list[type[FakeGateway]]:
    """Gateways that are only state."""
    return [FakeGateway]


@hookimpl
def trivet_dhcp_drivers() -> list[type[FakeDhcp]]:
    """Leases that are only state."""
    return [FakeDhcp]


@hookimpl
def trivet_firewall_backends() -> list[type[FakeFirewall]]:
    """A firewall that says which rule a packet meets."""
    return [FakeFirewall]


@hookimpl
def trivet_alarm_sinks() -> list[type[FakeAlarmSink]]:
    """A sink that keeps what it was told."""
    return [FakeAlarmSink]
