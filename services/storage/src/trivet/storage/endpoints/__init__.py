"""The handlers of the storage service's operations, one file each."""
