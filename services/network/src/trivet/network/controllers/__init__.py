"""Cluster-wide duties of the network service; one instance leads."""
