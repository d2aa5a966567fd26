"""Where this software keeps what it makes: caches of games and indexes, and the server's journal."""

import os
from pathlib import Path

__all__ = ["steppo_home"]


def steppo_home() -> Path:
    """Return `$STEPPO_HOME`, by default ~/.cache/steppo. It may not exist yet."""
    home = os.environ.get("STEPPO_HOME")
    return Path(home) if home else Path.home() / ".cache" / "steppo"
