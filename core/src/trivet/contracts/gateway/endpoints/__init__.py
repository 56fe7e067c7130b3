"""The gateway has no operation on the bus: it offers those of the other services over HTTP."""
