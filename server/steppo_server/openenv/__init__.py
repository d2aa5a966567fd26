"""The OpenEnv protocol, as `openenv-core` 0.3.0 speaks it: its own client drives our sessions."""

from steppo_server.openenv.app import mount_openenv

__all__ = ["mount_openenv"]
