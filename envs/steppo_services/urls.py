"""Addresses that people type."""

import httpx

from steppo_env.errors import InvalidInput

__all__ = ["check_url"]


def check_url(text: str, what: str, example: str) -> None:
    """Refuse what is not an http or https URL.

    Raises:
        InvalidInput: It says `what` has which form.

    >>> check_url("http://127.0.0.1:8765", "a server", "http://127.0.0.1:8765")
    """
    try:
        url = httpx.URL(text)
        is_usable = url.scheme in ("http", "https") and bool(url.host)
    except httpx.InvalidURL:
        is_usable = False
    if not is_usable:
        raise InvalidInput(f"{what} has a URL such as {example}, not {text!r}")
