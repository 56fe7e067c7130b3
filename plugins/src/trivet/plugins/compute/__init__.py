"""Drivers for the compute service."""
