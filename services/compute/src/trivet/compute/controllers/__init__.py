"""Cluster-wide duties of the compute service; one instance leads."""
