"""The lab: one real node under faults, and what must be left of everything afterwards.

It drives a node as its operator does (`trivet.host`, `trivet.client`), so it needs the whole
workspace, unlike the rest of `trivet.testing`.
"""
