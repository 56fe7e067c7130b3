"""Duties of the compute service's agent on its node."""
