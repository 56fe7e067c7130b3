"""Cluster-wide duties of the storage service; one instance leads."""
