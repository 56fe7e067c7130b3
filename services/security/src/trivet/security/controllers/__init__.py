"""Cluster-wide duties of the security service; one instance leads."""
