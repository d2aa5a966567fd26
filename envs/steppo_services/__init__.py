"""One way to call the JSON services that environments may ask: search, embeddings, judges, scorers."""

from steppo_services.service import JsonService
from steppo_services.urls import check_url

__all__ = ["JsonService", "check_url"]
