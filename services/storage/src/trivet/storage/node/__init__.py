"""Duties of the storage service's agent on its node."""
