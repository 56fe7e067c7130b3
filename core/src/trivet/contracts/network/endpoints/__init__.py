"""The operations of the network service, one file each."""
