"""Trivet's own drivers. Each is a plugin like anybody else's: one module, one entry point."""
