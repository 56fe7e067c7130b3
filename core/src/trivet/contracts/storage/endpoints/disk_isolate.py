"""Isolate a disk: what lies on it is moved away, nothing new comes to it.

A last good copy stays until another is in sync: the condition `Redundant` of its volume says so.
"""

from trivet.contracts.endpoint import action
from trivet.contracts.storage.disk import DISK

ENDPOINT = action(DISK, "isolate", "Isolate a disk: move away what lies on it.")
