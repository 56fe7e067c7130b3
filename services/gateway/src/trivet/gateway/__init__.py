"""The gateway: REST and events over the endpoint declarations, with no code per resource."""
