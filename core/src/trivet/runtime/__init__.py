"""The shell that all services run in: bus, store, leases, reconcile loops, plugins, settings.

It knows the contracts and no service. Everything here that touches the world stands behind a
Protocol with an in-memory twin in `trivet.testing`, and one suite runs on both.
"""
