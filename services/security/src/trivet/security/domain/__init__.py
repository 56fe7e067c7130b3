"""What the security service decides: pure, without I/O or time."""
