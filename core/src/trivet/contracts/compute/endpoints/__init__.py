"""The operations of the compute service, one file each."""
