"""The `steppo` command."""

from steppo_client.cli.app import main

__all__ = ["main"]
