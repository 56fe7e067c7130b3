"""Twins, fakes, conformance suites: what tests of Trivet and of its plugins stand on."""
