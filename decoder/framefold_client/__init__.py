"""A client of the decoder's REST service; needs numpy and httpx only."""

from framefold_client.client import Client, ClientError

__all__ = ["Client", "ClientError"]
