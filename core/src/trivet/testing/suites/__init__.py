"""Conformance suites: a driver of a kind is one that passes the suite of that kind."""
