"""The handlers of the compute service's operations, one file each."""
