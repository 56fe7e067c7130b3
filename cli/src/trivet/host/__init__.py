"""What sets a node up, keeps its processes running, and takes it all away again."""
