"""Contracts of the compute service: nodes, images, virtual machines, hypervisors."""
