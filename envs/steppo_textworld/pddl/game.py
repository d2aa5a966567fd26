"""A TextWorld-PDDL game as loaded, shared by its runs."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from steppo_env.errors import EnvError, MissingData
from steppo_textworld.pddl.names import spoken_names
from steppo_textworld.pddl.planner import Planner
from steppo_textworld.pddl.sas import Atom, Operator, State
from steppo_textworld.pddl.translation import translated
from steppo_textworld.pddl.words import Scene, read_words

__all__ = ["PddlGame", "read_game"]

NUM_LOADED = 32
"""Games that stay in memory, each 2 to 6 MB."""

_BANNER = re.compile(r"^-= .* =-$", re.MULTILINE)
_DENIED = "not_"
"""Before a predicate: an action has made it false, and nothing has made it true since."""


class PddlGame:
    """A game: its states, its words, and what is known about both.

    Attributes:
        task: The states and operators.
        names: What the player calls each thing.
        walkthrough: Commands that win the game from its start; empty when it brings none.
    """

    def __init__(self, domain: str, problem: str, grammar: str, walkthrough: Sequence[str]) -> None:
        self._translation = translated(domain, problem)
        self._words = read_words(grammar)
        self._commands: dict[str, str] = {}
        self.task = self._translation.task
        self.walkthrough = tuple(walkthrough)
        atoms = [*self._translation.fixed, *self.task.true_atoms(self.task.initial)]
        self.names = spoken_names(name for _, objects in atoms for name in objects)

    @cached_property
    def planner(self) -> Planner:
        """Finds ways to the goal."""
        return Planner(self.task)

    def opening(self) -> tuple[str, str]:
        """Return what the game says at its start, without its banner, and the task it sets."""
        scene = self._scene(self.task.initial, ())
        told = self._words.say("#intro#", scene, {})
        task = self._words.say("#task#", scene, {}) if self._words.has("task") else ""
        opening = _BANNER.sub("", told.replace(task, "") if task else told)
        return re.sub(r"\n{3,}", "\n\n", opening).strip(), task.strip()

    def commands(self, state: State) -> dict[str, Operator]:
        """Return the operators that can be applied by the command that asks for each."""
        commands: dict[str, Operator] = {}
        for operator in self.task.applicable(state):
            commands.setdefault(self.command(operator, state), operator)
        return commands

    def command(self, operator: Operator, state: State) -> str:
        """Return how the player asks for an operator."""
        known = self._commands.get(operator.name)
        if known is not None:
            return known
        action, bound = self._bound(operator)
        template = self._words.actions[action].template
        command = self._words.say(template, self._scene(state, ()), bound)
        if action not in self._shifting:
            self._commands[operator.name] = command
        return command

    def feedback(self, operator: Operator, state: State, denied: Iterable[Atom]) -> str:
        """Return what the game says in the state that an operator has led to."""
        action, bound = self._bound(operator)
        scene = self._scene(state, denied)
        return self._words.say(self._words.actions[action].feedback, scene, bound).strip()

    def world(self, state: State) -> list[str]:
        """Return what holds of all that can change and that anything ever looks at, sorted."""
        held = (self.task.atoms[variable][state[variable]] for variable in self._telling)
        return sorted(f"{atom[0]}({', '.join(atom[1])})" for atom in held if atom is not None)

    def denials(self, before: State, after: State) -> tuple[set[Atom], set[Atom]]:
        """Return the atoms that a step has made false, and true, as far as the grammar asks."""
        false: set[Atom] = set()
        true: set[Atom] = set()
        for values, old, new in zip(self.task.atoms, before, after):
            if old != new:
                for value, found in ((old, false), (new, true)):
                    atom = values[value]
                    if atom is not None and _DENIED + atom[0] in self._asked:
                        found.add(atom)
        return false, true

    @cached_property
    def _asked(self) -> frozenset[str]:
        return self._words.asks_for()

    @cached_property
    def _telling(self) -> tuple[int, ...]:
        changed = {
            variable for operator in self.task.operators for _, variable, _ in operator.effects
        }
        asked = {
            variable
            for variable, values in enumerate(self.task.atoms)
            if any(atom is not None and atom[0] in self._asked for atom in values)
        }
        return tuple(sorted(changed & (asked | set(self.task.read_variables))))

    @cached_property
    def _shifting(self) -> frozenset[str]:
        """The actions whose command depends on the state."""
        fluent = {atom[0] for values in self.task.atoms for atom in values if atom is not None}
        return frozenset(
            name for name in self._words.actions if self._words.asked_by_command(name) & fluent
        )

    @cached_property
    def _fixed(self) -> Mapping[str, Sequence[tuple[str, ...]]]:
        return _by_predicate(self._translation.fixed, self._asked)

    def _scene(self, state: State, denied: Iterable[Atom]) -> Scene:
        atoms = [*self.task.true_atoms(state), *((_DENIED + name, them) for name, them in denied)]
        told = _by_predicate(atoms, self._asked)
        facts = {
            name: sorted([*self._fixed.get(name, ()), *told.get(name, ())])
            for name in {*self._fixed, *told}
        }
        translation = self._translation
        return Scene(facts, translation.objects, translation.types, self.names)

    def _bound(self, operator: Operator) -> tuple[str, dict[str, str]]:
        action, *objects = operator.name.split()
        if action not in self._words.actions:
            raise EnvError(f"the grammar of the game has no words for the action {action!r}")
        return action, dict(zip(self._translation.parameters[action], objects))


def _by_predicate(
    atoms: Iterable[Atom], asked: frozenset[str]
) -> Mapping[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for name, objects in atoms:
        if name in asked:
            found[name].append(objects)
    return found


def read_game(path: Path) -> PddlGame:
    """Return a game by its file, `game.tw-pddl`.

    Raises:
        MissingData: The file is not there, or is not such a game.
        MissingDependency: Fast Downward's translator is not installed.
        EnvError: The game cannot be translated.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise MissingData(f"there is no game at {path}: {error}") from error
    return _read_game(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=NUM_LOADED)
def _read_game(path: Path, _changed_ns: int, _size: int) -> PddlGame:
    try:
        document = json.loads(path.read_bytes())
        domain, problem, grammar = (
            str(document[name]) for name in ("pddl_domain", "pddl_problem", "grammar")
        )
        walkthrough = [str(command) for command in document.get("walkthrough") or ()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingData(f"{path} is not a TextWorld-PDDL game: {error!r}") from error
    return PddlGame(domain, problem, grammar, walkthrough)
