"""Semantic fakes of every kind of driver.

They are stricter than the real thing, and have their faults in their configuration.
"""
