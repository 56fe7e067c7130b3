"""The trivet command."""
