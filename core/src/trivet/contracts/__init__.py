"""What the services, the plugins and the outside agree on: models, errors, endpoints, hooks.

Pure pydantic and Protocols. Nothing here opens a socket, reads a clock or knows a service's
decisions; everything else in Trivet may import it, and it imports nothing of Trivet's.
"""
