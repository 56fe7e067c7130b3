"""Scrub a volume now: all its replicas are read and compared, and what is rotten is repaired."""

from trivet.contracts.endpoint import action
from trivet.contracts.storage.volume import VOLUME

ENDPOINT = action(VOLUME, "scrub", "Read and compare all replicas of a volume, and repair them.")
