"""Program: translate a PDDL task, read from standard input, with Fast Downward's translator.

It runs in a process of its own and imports nothing of this package: the translator sets `sys.argv`
and global options, and takes over standard output. Both sides are one JSON document.
"""

import json
import sys
from importlib import import_module
from typing import Any

__all__ = ["translate"]

# It ships no types, and what it says of itself is not so.
fast_downward: Any = import_module("fast_downward")


def translate(domain: str, problem: str) -> dict[str, Any]:
    """Return the task in SAS format, and what that leaves out: types, and what never changes."""
    task, sas = fast_downward.pddl2sas(domain, problem)
    return {
        "sas": sas,
        "types": {kind.name: kind.supertype_names for kind in task.types},
        "objects": {item.name: item.type_name for item in task.objects},
        # Assignments are of costs, which no command asks about.
        "facts": sorted(
            [fact.predicate, *fact.args]
            for fact in task.init
            if hasattr(fact, "predicate") and fact.predicate != "="
        ),
        "parameters": {
            action.name: [
                parameter.name.removeprefix("?")
                for parameter in action.parameters[: action.num_external_parameters]
            ]
            for action in task.actions
        },
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(translate(**json.load(sys.stdin))))
