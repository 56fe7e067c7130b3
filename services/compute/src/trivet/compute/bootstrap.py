"""Puts the compute service together: the only place that wires."""

from __future__ import annotations

from trivet.compute.controllers.image import ImageController
from trivet.compute.controllers.node import NodeController
from trivet.compute.controllers.vm import VmController
from trivet.compute.controllers.vm_parts import VmParts
from trivet.compute.controllers.vm_placement import VmPlacement
from trivet.compute.gauges import gauges
from trivet.compute.node.balloons import Balloons
from trivet.compute.node.checks import NodeChecks
from trivet.compute.node.guest_watch import GuestWatch
from trivet.compute.node.image_agent import ImageAgent
from trivet.compute.node.registration import Registration
from trivet.compute.node.streams import Streams
from trivet.compute.node.vm_agent import VmAgent
from trivet.compute.parts import Parts
from trivet.contracts.compute.alarms import ALARM, RULES
from trivet.contracts.compute.balloon import Balloon
from trivet.contracts.compute.guest_agent import GuestAgent
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.image import IMAGE
from trivet.contracts.compute.node import NODE
from trivet.contracts.compute.stats import Statistics
from trivet.contracts.compute.vm import VM
from trivet.runtime.alarms import keep_alarms
from trivet.runtime.node_checks import open_checks
from trivet.runtime.service import Service
from trivet.runtime.wiring import wire_endpoints

IMPORTS_FOLDER = "imports"
FILE_SOURCE = "file"


async def bootstrap(service: Service) -> None:
    """Open the drivers, and register endpoints, controllers and agents."""
    runtime = service.runtime
    vms, nodes = service.collection(VM), service.collection(NODE)
    images = service.collection(IMAGE)
    hypervisor: Hypervisor = await runtime.driver(
        "trivet_hypervisor_drivers", runtime.settings.compute.hypervisor
    )
    service.on_close(hypervisor.close)
    agent = VmAgent(service, vms, nodes, hypervisor)
    checks = await open_checks(runtime.plugins, runtime.settings, runtime.driver_context)
    for check in checks:
        service.on_close(check.close)
    registration = Registration(service, nodes, hypervisor, agent)
    service.agent("checks", NodeChecks(service, nodes, hypervisor, checks).run)
    service.agent("registration", registration.run)
    service.agent("heartbeat", registration.run_beats)
    service.agent("vms", agent.run)
    service.agent("orphans", agent.run_sweeps)
    if isinstance(hypervisor, GuestAgent):
        service.agent("guests", GuestWatch(service, vms, hypervisor).run)
    if isinstance(hypervisor, Balloon) and isinstance(hypervisor, Statistics):
        balloons = Balloons(service, vms, nodes, hypervisor, hypervisor)
        service.agent("balloons", balloons.run)
    streams = Streams(runtime, hypervisor)
    service.agent("streams", streams.run)
    image_agent = await _image_agent(service)
    service.agent("images", image_agent.run)
    placement = VmPlacement(
        vms,
        nodes,
        runtime.clock,
        runtime.plugins.values("trivet_placement_filters"),
        runtime.plugins.values("trivet_placement_scorers"),
    )
    controller = VmController(service, vms, nodes, images, placement, VmParts(runtime.client))
    service.controller("vms", controller.run)
    service.controller("nodes", NodeController(service, nodes, vms).run)
    service.controller("images", ImageController(service, images, nodes).run)
    service.state.add(gauges(nodes, vms))
    await keep_alarms(service, ALARM, RULES)
    wire_endpoints(service, Parts(runtime, vms, nodes, images, hypervisor, agent, streams))


async def _image_agent(service: Service) -> ImageAgent:
    runtime = service.runtime
    context = runtime.driver_context
    configs = {**runtime.settings.plugins}
    import_dir = {"import_dir": runtime.settings.compute.import_dir}
    configs[FILE_SOURCE] = {**import_dir, **configs.get(FILE_SOURCE, {})}
    sources = await runtime.plugins.usable("trivet_image_sources", context, configs)
    writers = await runtime.plugins.usable("trivet_image_writers", context, configs)
    for driver in (*sources, *writers):
        service.on_close(driver.close)
    folder = runtime.settings.state_dir / runtime.service / IMPORTS_FOLDER
    return ImageAgent(service, service.collection(IMAGE), sources, writers, folder)
