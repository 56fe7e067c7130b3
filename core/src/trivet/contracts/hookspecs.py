"""Every extension point of Trivet, one hook each.

Hooks are plain functions that register and do no I/O: each returns classes of a kind of
driver, or values. Drivers then act, asynchronously. A plugin is a module with functions of
these names marked `@hookimpl`, named by an entry point of the group `trivet` (or
`trivet.<service>`, for one service alone).
"""

from __future__ import annotations

import pluggy

from trivet.contracts.alarm_sink import AlarmSink
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.image_source import ImageSource, ImageWriter
from trivet.contracts.compute.node_check import NodeCheck
from trivet.contracts.compute.placement import PlacementFilter, PlacementScorer
from trivet.contracts.network.gateway_driver import DhcpDriver, GatewayDriver
from trivet.contracts.network.switch import Switch
from trivet.contracts.security.firewall import FirewallBackend
from trivet.contracts.security.identity_provider import IdentityProvider
from trivet.contracts.storage.engine import VolumeEngine
from trivet.contracts.storage.inspector import DiskInspector

PROJECT = "trivet"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def trivet_hypervisor_drivers() -> list[type[Hypervisor]]:  # type: ignore[empty-body]
    """Drivers that run guests on a node (compute)."""


@hookspec
def trivet_image_sources() -> list[type[ImageSource]]:  # type: ignore[empty-body]
    """Drivers that bring the bytes of images to a node (compute); all usable ones serve."""


@hookspec
def trivet_image_writers() -> list[type[ImageWriter]]:  # type: ignore[empty-body]
    """Drivers that look at image files and write them to volumes (compute)."""


@hookspec
def trivet_placement_filters() -> list[PlacementFilter]:  # type: ignore[empty-body]
    """Further reasons why a node can't take a VM (compute); all serve."""


@hookspec
def trivet_placement_scorers() -> list[PlacementScorer]:  # type: ignore[empty-body]
    """Further preferences among the nodes that can take a VM (compute); all serve."""


@hookspec
def trivet_volume_engines() -> list[type[VolumeEngine]]:  # type: ignore[empty-body]
    """Drivers that keep replicas and attach volumes on a node (storage)."""


@hookspec
def trivet_disk_inspectors() -> list[type[DiskInspector]]:  # type: ignore[empty-body]
    """Drivers that look at a node's block devices (storage)."""


@hookspec
def trivet_switch_drivers() -> list[type[Switch]]:  # type: ignore[empty-body]
    """Drivers of a node's part of the distributed switch (network)."""


@hookspec
def trivet_gateway_drivers() -> list[type[GatewayDriver]]:  # type: ignore[empty-body]
    """Drivers of a network's gateway on a node (network)."""


@hookspec
def trivet_dhcp_drivers() -> list[type[DhcpDriver]]:  # type: ignore[empty-body]
    """Drivers of DHCP and DNS on a node's networks (network)."""


@hookspec
def trivet_firewall_backends() -> list[type[FirewallBackend]]:  # type: ignore[empty-body]
    """Drivers of the firewall at a node's ports (security)."""


@hookspec
def trivet_identity_providers() -> list[type[IdentityProvider]]:  # type: ignore[empty-body]
    """Drivers that tell who a bearer token belongs to (security); asked in turn."""


@hookspec
def trivet_alarm_sinks() -> list[type[AlarmSink]]:  # type: ignore[empty-body]
    """Drivers that tell alarms to people and other systems (all services); settings name them."""


@hookspec
def trivet_node_checks() -> list[type[NodeCheck]]:  # type: ignore[empty-body]
    """Drivers that look at a node's own health (compute, doctor); all usable ones serve."""
