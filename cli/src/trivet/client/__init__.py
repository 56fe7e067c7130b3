"""A Python client of the REST API, made from the endpoint declarations."""
