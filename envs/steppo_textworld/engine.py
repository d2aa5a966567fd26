"""The parts of TextWorld and Jericho that are used, imported once with their warnings contained.

Neither ships types, so both are dynamic here; the rest of the package sees typed values only.
"""

import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = [
    "TEXTWORLD_VERSION",
    "challenges",
    "inform7",
    "interpreter",
    "jericho",
    "logic",
    "textworld",
    "world",
]

try:
    # Both packages set global warning filters and warn when they are imported; neither may reach
    # the program that uses this environment.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jericho: Any = import_module("jericho")
        textworld: Any = import_module("textworld")
        challenges: Any = import_module("textworld.challenges")
        world: Any = import_module("textworld.generator.game")
        inform7: Any = import_module("textworld.generator.inform7")
        logic: Any = import_module("textworld.logic")
except ImportError as error:
    raise ImportError(
        f"steppo/TextWorld-v0 needs TextWorld, which could not be imported ({error}); "
        'install it with: pip install "steppo-env[textworld]"'
    ) from error

TEXTWORLD_VERSION: str = textworld.__version__

INTERPRETER_SEED = 1
"""Jericho reads 0 as "seed from the clock". The games seed themselves when they begin as well."""


def interpreter(path: Path) -> Any:
    """Start a Z-machine on a compiled game.

    Each has its own copy of the interpreter library, which it unloads when it is deleted.
    """
    with warnings.catch_warnings():
        # Jericho knows the scores of commercial games only; a TextWorld game prints its own.
        warnings.simplefilter("ignore", jericho.UnsupportedGameWarning)
        return jericho.FrotzEnv(str(path), INTERPRETER_SEED)
