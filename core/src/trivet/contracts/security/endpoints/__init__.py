"""The operations of the security service, one file each."""
