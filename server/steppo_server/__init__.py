"""The HTTP server of step-level MDP environments."""

from steppo_server.app import create_app
from steppo_server.settings import ServerSettings, read_settings

__all__ = ["ServerSettings", "create_app", "read_settings"]
