"""Drivers for the storage service."""
