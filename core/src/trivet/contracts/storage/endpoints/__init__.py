"""The operations of the storage service, one file each."""
