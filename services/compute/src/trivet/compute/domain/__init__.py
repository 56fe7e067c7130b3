"""What the compute service decides: pure, without I/O or time."""
