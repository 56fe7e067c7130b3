"""The handlers of the security service's operations, one file each."""
