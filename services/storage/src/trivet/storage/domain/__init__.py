"""What the storage service decides: pure, without I/O or time."""
