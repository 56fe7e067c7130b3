"""The Python client of Trivet's API: `Client`, its configuration, and Trivet's own errors."""

from trivet.client.client import Client, SeenEvent
from trivet.client.config import ClientConfig, load_config
from trivet.client.resources import Resources

__all__ = ["Client", "ClientConfig", "Resources", "SeenEvent", "load_config"]
