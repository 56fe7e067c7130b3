"""What a node can say of its own health."""
