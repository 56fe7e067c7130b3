"""The handlers of the network service's operations, one file each."""
