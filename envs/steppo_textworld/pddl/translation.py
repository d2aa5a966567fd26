"""Planning problems as Fast Downward translates them, once for each, kept in a cache."""

import gzip
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from steppo_env.errors import EnvError, MissingDependency
from steppo_textworld.games import games_home
from steppo_textworld.pddl.sas import Atom, SasTask, read_sas

__all__ = ["Translation", "translated"]

PROGRAM = Path(__file__).with_name("translate_here.py")
TIMEOUT_S = 300.0
"""Longest time for one translation; the largest ALFWorld kitchen takes about two seconds."""
RECIPE = 1
"""Part of the cache key: a change in what is kept is a new number."""


@dataclass(frozen=True)
class Translation:
    """A planning problem, ready to be played.

    Attributes:
        task: Its states and operators.
        types: The supertypes of each type.
        objects: The type of each object.
        fixed: The facts that no operator changes.
        parameters: The names of the parameters of each action.
    """

    task: SasTask
    types: Mapping[str, frozenset[str]]
    objects: Mapping[str, str]
    fixed: tuple[Atom, ...]
    parameters: Mapping[str, Sequence[str]]


def translated(domain: str, problem: str) -> Translation:
    """Return a problem's translation; the first time it takes one to two seconds.

    Raises:
        MissingDependency: The translator is not installed.
        EnvError: The problem cannot be translated, or the cache cannot be written.
    """
    path = _place(domain, problem)
    document = _read(path)
    if document is None:
        document = _translate(domain, problem)
        _write(path, document)
    task = read_sas(document["sas"])
    told = {atom for values in task.atoms for atom in values if atom is not None}
    facts = [(predicate, tuple(names)) for predicate, *names in document["facts"]]
    return Translation(
        task,
        {name: frozenset(parents) for name, parents in document["types"].items()},
        document["objects"],
        tuple(fact for fact in facts if fact not in told),
        document["parameters"],
    )


def _place(domain: str, problem: str) -> Path:
    if importlib.util.find_spec("fast_downward") is None:
        raise MissingDependency(
            "ALFWorld's games need Fast Downward's translator, which is not installed; "
            'install it with: pip install "steppo-env[alfworld]"'
        )
    names = f"translation-{RECIPE} {version('fast-downward-textworld')}"
    key = sha256(f"{names}\0{domain}\0{problem}".encode()).hexdigest()
    return games_home() / "pddl" / key[:2] / f"{key}.json.gz"


def _read(path: Path) -> dict[str, Any] | None:
    """Return what the cache has, or None where it has nothing or a damaged file."""
    try:
        document: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError):
        return None
    return document


def _translate(domain: str, problem: str) -> dict[str, Any]:
    try:
        done = subprocess.run(
            [sys.executable, str(PROGRAM)],
            input=json.dumps({"domain": domain, "problem": problem}),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            # Sets decide the order of what it writes.
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"},
        )
    except subprocess.TimeoutExpired as error:
        raise EnvError(f"translating a PDDL game took longer than {TIMEOUT_S:.0f} s") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvError(f"Fast Downward could not translate a PDDL game: {last[:500]}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """Put a translation in its place in one piece, also while others do the same."""
    data = gzip.compress(json.dumps(document).encode(), compresslevel=6, mtime=0)
    draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        raise EnvError(
            f"cannot keep translated games under {games_home()}: {error}; "
            "set STEPPO_HOME to a folder that can be written"
        ) from error
    finally:
        draft.unlink(missing_ok=True)
