"""A third party's filter and scorer of nodes: registered by their hooks, heard by placement."""

from types import SimpleNamespace
from typing import ClassVar

from trivet.compute.domain.placement import FILTERS, SCORERS, place
from trivet.contracts.compute.placement import CpuRoom, NodeView
from trivet.contracts.compute.vm import VmSpec
from trivet.contracts.hookspecs import hookimpl
from trivet.runtime.plugins import Plugins


class NotOnFridays:
    name: ClassVar[str] = "not-on-fridays"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        return "it is Friday there" if node.name == "friday" else None


class LikesB:
    name: ClassVar[str] = "likes-b"
    weight: ClassVar[float] = 100.0

    def score(self, vm: VmSpec, node: NodeView) -> float:
        return 1.0 if node.name == "b" else 0.0


def discovered() -> Plugins:
    @hookimpl
    def trivet_placement_filters() -> list[NotOnFridays]:
        return [NotOnFridays()]

    @hookimpl
    def trivet_placement_scorers() -> list[LikesB]:
        return [LikesB()]

    plugins = Plugins()
    module = SimpleNamespace(
        trivet_placement_filters=trivet_placement_filters,
        trivet_placement_scorers=trivet_placement_scorers,
    )
    plugins.register(module, "third-party")
    assert plugins.rejected == {}
    return plugins


def node(name: str, used_mib: int = 0) -> NodeView:
    return NodeView(name, True, False, 4, 16, 8192, 0, used_mib, room=CpuRoom(cpus=4))


def test_a_filter_refuses_with_its_reason_and_a_scorer_outweighs() -> None:
    plugins = discovered()
    filters = (*FILTERS, *plugins.values("trivet_placement_filters"))
    scorers = (*SCORERS, *plugins.values("trivet_placement_scorers"))
    nodes = [node("a"), node("b", used_mib=4096), node("friday")]
    decision = place(VmSpec(), nodes, filters, scorers)
    assert decision.node == "b"
    reasons = {verdict.node: verdict.why for verdict in decision.verdicts}
    assert reasons["friday"] == "it is Friday there"
    assert "likes-b" in reasons["b"]
    assert place(VmSpec(), nodes).node == "a"
