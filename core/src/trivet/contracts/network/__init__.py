"""Contracts of the network service: networks, ports, switches, gateways, addresses."""
