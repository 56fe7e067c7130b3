"""Contracts of the security service: firewalls, users, tokens, roles, projects, audit."""
