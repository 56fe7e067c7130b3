"""Contracts of the gateway: what it alone can refuse. It owns no resource and no operation."""
