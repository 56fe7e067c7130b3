"""Drivers for the network service."""
