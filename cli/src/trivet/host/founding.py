"""Making a cluster of several nodes at once: keys, list of members, certificates, configuration.

Everything is done on files, for nodes whose folders this machine sees; each node then starts by
itself, as it would after a reboot. A repeated founding keeps what is there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trivet.host import machine
from trivet.host.certificates import ensure_authority, ensure_issued
from trivet.host.cluster import Cluster, Member, Membership, keep_membership
from trivet.host.keys import ensure_keys
from trivet.host.layout import Layout
from trivet.host.setup import configure
from trivet.runtime.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a node's folders are, and what it is called and reached by (`cluster.Member`)."""

    layout: Layout
    name: str
    address: str
    storage_address: str | None = None
    witness: bool = False


def found(cluster: str, places: Sequence[Place], authority: Path, user: int) -> list[Settings]:
    """Make `places` the members of a cluster of that name, whose certificate authority is in
    the folder `authority`; the settings of each. `user` is the service user's id."""
    now = dt.datetime.now(dt.UTC)
    ensure_authority(authority, now)
    made = Cluster(name=cluster, members=tuple(_member(place, user) for place in places))
    settings = []
    for place in places:
        names, addresses = [place.name, "localhost"], [place.address, "127.0.0.1", "::1"]
        ensure_issued(authority, place.layout.tls, names, addresses, user, now)
        keep_membership(place.layout, Membership(node=place.name, cluster=made))
        settings.append(configure(place.layout, user))
    return settings


def _member(place: Place, user: int) -> Member:
    machine.make_folders(place.layout)
    return Member(
        name=place.name,
        address=place.address,
        storage_address=place.storage_address,
        witness=place.witness,
        public_keys=ensure_keys(place.layout.keys, {"gateway": user}),
    )
