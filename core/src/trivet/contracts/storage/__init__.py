"""Contracts of the storage service: disks, pools, volumes, and the engines below them."""
