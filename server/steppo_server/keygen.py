"""`steppo keygen`: make a key for a server."""

import json
import sys
from typing import Annotated

import typer

from steppo_env.errors import InvalidInput
from steppo_server.auth import DIGEST_PREFIX, KeyScope, digest_of, is_key_name, new_key

__all__ = ["keygen"]


def keygen(
    name: Annotated[str, typer.Argument(help="Whose key it is; sessions belong to this name.")],
    scope: Annotated[
        list[KeyScope] | None, typer.Option(help="What it may do; may be given again [act].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a key: its table for the server's file on stdout, the key itself on stderr, this once."""
    if not is_key_name(name):
        raise InvalidInput(f"a name has 1 to 64 letters, digits, _, . or -, not {name!r}")
    scopes = list(dict.fromkeys(scope or [KeyScope.ACT]))
    key = new_key()
    digest = DIGEST_PREFIX + digest_of(key).hex()
    if as_json:
        made = {"name": name, "key": key, "digest": digest, "scopes": scopes}
        sys.stdout.write(json.dumps(made) + "\n")
        return
    # A table can be appended to the file (>> serve.toml), where the key itself must not stand.
    table = f'keys."{name}"' if "." in name else f"keys.{name}"
    sys.stdout.write(f'[{table}]\ndigest = "{digest}"\nscopes = {json.dumps(scopes)}\n')
    sys.stdout.flush()
    sys.stderr.write(f"the key of {name}, shown only now: {key}\n")
