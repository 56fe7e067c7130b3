"""Drivers for the security service."""
