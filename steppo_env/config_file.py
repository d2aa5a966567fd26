"""The configuration file that the server and the command line share."""

import tomllib
from pathlib import Path

from steppo_env.errors import InvalidInput, MissingData

__all__ = ["read_config_table"]

TABLES = frozenset({"environments", "keys", "server"})


def read_config_table(path: Path, name: str) -> dict[str, object]:
    """Return one table of a configuration file; an absent one is empty.

    Raises:
        MissingData: The file cannot be read.
        InvalidInput: It is not TOML, has a table that nobody reads, or `name` is no table.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MissingData(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    unknown = sorted(set(document) - TABLES)
    if unknown:
        raise InvalidInput(
            f"{path} has [server], [keys.*] and [environments.*], not {', '.join(unknown)}"
        )
    table = document.get(name, {})
    if not isinstance(table, dict):
        raise InvalidInput(f"{path}: {name} is a table, not {table!r}")
    return table
