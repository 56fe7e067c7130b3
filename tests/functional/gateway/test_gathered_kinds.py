"""A kind that several services have, at one place of the API: alarms."""

from datetime import UTC, datetime

import pytest

from trivet.contracts.access import CLUSTER, Caller, Grant
from trivet.contracts.alarm import Alarm, AlarmSpec, AlarmStatus, Severity, Subject
from trivet.contracts.endpoint import Page, declared
from trivet.contracts.errors import NOT_FOUND, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = {"compute": ("c1", "c2", "c3"), "network": (), "security": ("s1",), "storage": ("t1", "t2")}


def alarm(name):
    status = AlarmStatus(
        rule="test-rule",
        severity=Severity.WARNING,
        subject=Subject(kind="Vm"),
        title="T",
        cause="because",
        remedy="do",
        raised_at=NOW,
    )
    meta = Meta(id=ResourceId(f"alarm-{name}"), name=name, created_at=NOW, revision=7)
    return Alarm(meta=meta, spec=AlarmSpec(), status=status)


class Keeper:
    """One service's alarms."""

    def __init__(self, names):
        self.alarms = {name: alarm(name) for name in names}
        self.down = False

    async def list(self, request, call):
        if self.down:
            raise Retry(UNAVAILABLE, "it is away")
        names = [n for n in sorted(self.alarms) if n > (request.cursor or "")]
        page = tuple(self.alarms[n] for n in names[: request.limit])
        more = len(names) > request.limit
        return Page[Alarm](items=page, cursor=page[-1].meta.name if more else None)

    async def get(self, request, call):
        if self.down:
            raise Retry(UNAVAILABLE, "it is away")
        if request.name not in self.alarms:
            raise Refused(NOT_FOUND, f"there is no alarm {request.name}")
        return self.alarms[request.name]

    async def ack(self, request, call):
        found = await self.get(request, call)
        spec = AlarmSpec(acknowledged_by=call.caller.user, note=request.note)
        return found.with_spec(spec)


@pytest.fixture
async def keepers(site):
    made = {service: Keeper(names) for service, names in NAMES.items()}
    for service, keeper in made.items():
        for endpoint in declared(service):
            if endpoint.noun == "alarm":
                await site.cloud.serve(endpoint, getattr(keeper, endpoint.verb))
    return made


def names(answer):
    return [item["meta"]["name"] for item in answer.json()["items"]]


async def test_a_list_is_that_of_all_services(site, keepers):
    answer = await site.ask("GET", "/v1/alarms")
    assert names(answer) == ["c1", "c2", "c3", "s1", "t1", "t2"]
    assert answer.json()["cursor"] is None
    assert answer.json()["missing"] == []


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7])
async def test_pages_go_over_from_one_service_to_the_next(site, keepers, limit):
    found, cursor = [], None
    for _ in range(20):
        query = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        answer = await site.ask("GET", "/v1/alarms", params=query)
        assert len(answer.json()["items"]) <= limit
        found += names(answer)
        if (cursor := answer.json()["cursor"]) is None:
            break
    assert found == ["c1", "c2", "c3", "s1", "t1", "t2"]


async def test_a_cursor_that_no_list_gave_is_refused(site, keepers):
    answer = await site.ask("GET", "/v1/alarms", params={"cursor": "gateway!x"})
    assert answer.status_code == 422


async def test_a_service_that_is_away_is_named(site, keepers):
    keepers["compute"].down = True
    answer = await site.ask("GET", "/v1/alarms")
    assert answer.status_code == 200
    assert names(answer) == ["s1", "t1", "t2"]
    assert answer.json()["missing"] == ["compute"]


@pytest.mark.parametrize("name", ["c2", "s1", "t2"])
async def test_whoever_has_it_answers(site, keepers, name):
    answer = await site.ask("GET", f"/v1/alarms/{name}")
    assert answer.json()["meta"]["name"] == name
    assert answer.headers["ETag"] == '"7"'


async def test_one_that_nobody_has(site, keepers):
    answer = await site.ask("GET", "/v1/alarms/nope")
    assert answer.status_code == 404
    keepers["storage"].down = True
    answer = await site.ask("GET", "/v1/alarms/nope")
    assert answer.status_code == 503, "the one that is away may have it"
    assert (await site.ask("GET", "/v1/alarms/c1")).status_code == 200


async def test_an_action_is_of_the_one_that_has_it(site, keepers):
    answer = await site.ask("POST", "/v1/alarms/t1:ack", json={"note": "on it"})
    assert answer.json()["spec"]["acknowledged_by"] == "admin"
    assert answer.json()["spec"]["note"] == "on it"


async def test_a_caller_sees_what_it_may_see(site, keepers):
    grants = (Grant(project=CLUSTER, permissions=("storage.alarm.list", "storage.alarm.get")),)
    site.cloud.callers["disks"] = Caller(user="disks", token_id="t", grants=grants)
    assert names(await site.ask("GET", "/v1/alarms", who="disks")) == ["t1", "t2"]
    assert (await site.ask("GET", "/v1/alarms/c1", who="disks")).status_code == 404
    assert (await site.ask("POST", "/v1/alarms/t1:ack", who="disks")).status_code == 403
    assert (await site.ask("GET", "/v1/alarms", who="nobody")).status_code == 403


async def test_the_document_has_it_once(site):
    document = (await site.ask("GET", "/v1/openapi.json")).json()
    assert document["paths"]["/v1/alarms"]["get"]["operationId"] == "alarm.list"
    assert "/v1/alarms/{name}:ack" in document["paths"]
