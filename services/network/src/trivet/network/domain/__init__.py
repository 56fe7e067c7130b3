"""What the network service decides: pure, without I/O or time."""
