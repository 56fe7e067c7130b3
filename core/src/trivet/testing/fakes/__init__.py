"""Semantic fakes of every kind of driver: stricter than the real thing, faults in their configuration."""
