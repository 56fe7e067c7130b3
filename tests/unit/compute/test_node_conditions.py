"""What a node's checks, its clock and its VMs' restarts put on record."""

from datetime import UTC, datetime, timedelta

import pytest

from trivet.compute.domain.node_health import SKEW_BOUND_S, skewed, with_checks
from trivet.contracts.compute.node import Node, NodeSpec, NodeStatus
from trivet.contracts.compute.node_check import CheckResult
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def node():
    meta = Meta(id=ResourceId("node-1"), name="n1", created_at=NOW)
    return Node(meta=meta, spec=NodeSpec(), status=NodeStatus())


@pytest.mark.parametrize(("ok", "status"), [(True, "true"), (False, "false"), (None, "unknown")])
def test_a_check_becomes_a_condition(ok, status):
    result = CheckResult(type="DiskSpace", ok=ok, reason="R", message="m", detail="of the moment")
    told = with_checks(node(), [result], NOW).status.condition("DiskSpace")
    assert (told.status, told.reason, told.message, told.since) == (status, "R", "m", NOW)


def test_the_same_answer_again_is_no_change():
    result = CheckResult(type="DiskSpace", ok=True, reason="Enough", detail="5 GiB")
    once = with_checks(node(), [result], NOW)
    again = result.model_copy(update={"detail": "4 GiB"})
    assert with_checks(once, [again], LATER) == once


def test_a_clock_is_wrong_beyond_a_bound_and_right_again_within_half():
    right = node()
    assert skewed(right, SKEW_BOUND_S, NOW) is right
    for sign, word in ((1, "ahead"), (-1, "behind")):
        wrong = skewed(right, sign * (SKEW_BOUND_S + 1), NOW)
        told = wrong.status.condition("TimeSkew")
        assert (told.status, told.reason) == ("false", "Skewed")
        assert f"6 s {word}" in told.message
        assert skewed(wrong, sign * SKEW_BOUND_S * 0.9, LATER) is wrong, "no flapping at the bound"
        again = skewed(wrong, sign * SKEW_BOUND_S * 0.4, LATER)
        assert again.status.condition("TimeSkew").status == "true"
