"""Duties of the network service's agent on its node."""
