"""The client that fits a server's URL."""

from steppo_client.http_client import HttpEnvClient
from steppo_client.remote_client import RemoteEnvClient
from steppo_client.stream_client import StreamEnvClient

__all__ = ["client_of"]


def client_of(url: str, *, key: str | None = None) -> RemoteEnvClient:
    """Return a client that speaks HTTP or, for ws:// and wss://, over the stream.

    Args:
        key: Sent as a bearer token; None where the server asks nobody for a key.

    Raises:
        InvalidInput: It is no such URL.

    >>> type(client_of("ws://127.0.0.1:8765")).__name__
    'StreamEnvClient'
    """
    if url.startswith(("ws://", "wss://")):
        return StreamEnvClient(url, key=key)
    return HttpEnvClient(url, key=key)
