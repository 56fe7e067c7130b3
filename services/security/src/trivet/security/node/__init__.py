"""Duties of the security service's agent on its node."""
