"""Finite-domain planning tasks: the text that Fast Downward's translator writes, and its meaning.

The format is version 3 of the translator's output (Helmert 2009, *Concise finite-domain
representations for PDDL planning tasks*; https://www.fast-downward.org/latest/documentation/translator-output-format/).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from steppo_env.errors import EnvError

__all__ = ["Atom", "Axiom", "Fact", "Operator", "SasTask", "State", "read_sas"]

State = tuple[int, ...]
"""The value of each variable."""
Fact = tuple[int, int]
"""A variable and its value."""
Atom = tuple[str, tuple[str, ...]]
"""A predicate and its objects."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A ground action. An effect is its conditions, the variable and the value that it gets."""

    name: str
    precondition: tuple[Fact, ...]
    effects: tuple[tuple[tuple[Fact, ...], int, int], ...]


@dataclass(frozen=True, slots=True)
class Axiom:
    """A derived fact: the variable has the value where the conditions hold."""

    layer: int
    conditions: tuple[Fact, ...]
    variable: int
    value: int


@dataclass(frozen=True)
class SasTask:
    """A planning task over variables with finitely many values.

    Attributes:
        atoms: The atom that each value of each variable stands for; None stands for a negation.
        initial: The first state.
        goal: What must hold in the end.
        operators: The ground actions, in the translator's order.
        axioms: The derived facts, lowest layer first.
        defaults: The value of each derived variable where no axiom gives it one.
    """

    atoms: tuple[tuple[Atom | None, ...], ...]
    initial: State
    goal: tuple[Fact, ...]
    operators: tuple[Operator, ...]
    axioms: tuple[Axiom, ...]
    defaults: Mapping[int, int]

    def applicable(self, state: State) -> Iterator[Operator]:
        """Yield the operators that can be applied, in order, each name once."""
        seen: set[str] = set()
        for operator in self.operators:
            if operator.name not in seen and all(
                state[variable] == value for variable, value in operator.precondition
            ):
                seen.add(operator.name)
                yield operator

    def apply(self, operator: Operator, state: State) -> State:
        """Return the state after an operator; its conditions are read before it."""
        values = list(state)
        for conditions, variable, value in operator.effects:
            if self._holds(conditions, state):
                values[variable] = value
        return self.derive(values)

    def is_goal(self, state: State) -> bool:
        """Return whether the goal holds."""
        return self._holds(self.goal, state)

    def true_atoms(self, state: State) -> Iterator[Atom]:
        """Yield the atoms that hold, by variable."""
        for values, value in zip(self.atoms, state):
            atom = values[value]
            if atom is not None:
                yield atom

    @cached_property
    def read_variables(self) -> tuple[int, ...]:
        """The variables that an action, an axiom or the goal ever looks at, ascending.

        The others cannot make a difference to what happens.
        """
        facts = [*self.goal]
        for operator in self.operators:
            facts += operator.precondition
            facts += (fact for conditions, _, _ in operator.effects for fact in conditions)
        for axiom in self.axioms:
            facts += axiom.conditions
        return tuple(sorted({variable for variable, _ in facts}))

    def _holds(self, facts: Sequence[Fact], state: Sequence[int]) -> bool:
        return all(state[variable] == value for variable, value in facts)

    def derive(self, state: Sequence[int]) -> State:
        """Return the state with its derived variables, each layer brought to its fixed point."""
        values = list(state)
        for variable, value in self.defaults.items():
            values[variable] = value
        place = 0
        while place < len(self.axioms):
            layer = [axiom for axiom in self.axioms if axiom.layer == self.axioms[place].layer]
            place += len(layer)
            is_changing = True
            # Each round gives at least one more variable its final value, so this ends.
            while is_changing:
                is_changing = False
                for axiom in layer:
                    if values[axiom.variable] != axiom.value and self._holds(
                        axiom.conditions, values
                    ):
                        values[axiom.variable] = axiom.value
                        is_changing = True
        return tuple(values)


class _Lines:
    """The lines of a translated task, read one after the other."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._next = 0

    def text(self) -> str:
        if self._next == len(self._lines):
            raise EnvError("the translated planning task ends too early")
        self._next += 1
        return self._lines[self._next - 1]

    def expect(self, keyword: str) -> None:
        line = self.text()
        if line != keyword:
            raise EnvError(f"line {self._next} of the planning task is {line!r}, not {keyword!r}")

    def numbers(self) -> list[int]:
        return [int(word) for word in self.text().split()]

    def number(self) -> int:
        return int(self.text())

    def fact(self) -> Fact:
        variable, value = self.numbers()
        return variable, value

    def facts(self) -> tuple[Fact, ...]:
        return tuple(self.fact() for _ in range(self.number()))


def read_sas(text: str) -> SasTask:
    """Read a translated task.

    Raises:
        EnvError: The text is not of this format.
    """
    try:
        return _read(_Lines(text))
    except (ValueError, IndexError) as error:
        raise EnvError(f"the translated planning task cannot be read: {error}") from error


def _read(lines: _Lines) -> SasTask:
    lines.expect("begin_version")
    if lines.number() != 3:
        raise EnvError("the planning task is not of version 3 of the translator's format")
    lines.expect("end_version")
    lines.expect("begin_metric")
    lines.number()
    lines.expect("end_metric")
    layers: list[int] = []
    atoms: list[tuple[Atom | None, ...]] = []
    for _ in range(lines.number()):
        lines.expect("begin_variable")
        lines.text()
        layers.append(lines.number())
        atoms.append(tuple(_atom(lines.text()) for _ in range(lines.number())))
        lines.expect("end_variable")
    for _ in range(lines.number()):
        lines.expect("begin_mutex_group")
        lines.facts()
        lines.expect("end_mutex_group")
    lines.expect("begin_state")
    initial = [lines.number() for _ in atoms]
    lines.expect("end_state")
    lines.expect("begin_goal")
    goal = lines.facts()
    lines.expect("end_goal")
    operators = tuple(_operator(lines) for _ in range(lines.number()))
    axioms = [_axiom(lines, layers) for _ in range(lines.number())]
    axioms.sort(key=lambda axiom: axiom.layer)
    defaults = {axiom.variable: initial[axiom.variable] for axiom in axioms}
    task = SasTask(tuple(atoms), tuple(initial), goal, operators, tuple(axioms), defaults)
    return replace(task, initial=task.derive(initial))


def _operator(lines: _Lines) -> Operator:
    lines.expect("begin_operator")
    name = lines.text()
    precondition = list(lines.facts())
    effects: list[tuple[tuple[Fact, ...], int, int]] = []
    for _ in range(lines.number()):
        _, *numbers = lines.numbers()
        *conditions, variable, before, after = numbers
        if before != -1:
            precondition.append((variable, before))
        pairs = tuple(zip(conditions[::2], conditions[1::2], strict=True))
        effects.append((pairs, variable, after))
    lines.number()
    lines.expect("end_operator")
    return Operator(name, tuple(precondition), tuple(effects))


def _axiom(lines: _Lines, layers: Sequence[int]) -> Axiom:
    lines.expect("begin_rule")
    conditions = lines.facts()
    variable, _, value = lines.numbers()
    lines.expect("end_rule")
    return Axiom(layers[variable], conditions, variable, value)


def _atom(text: str) -> Atom | None:
    """Read `Atom on(a, b)`; a value that denies an atom, or all of several, is None."""
    kind, _, atom = text.partition(" ")
    if kind != "Atom":
        return None
    predicate, _, objects = atom.partition("(")
    names = objects.removesuffix(")")
    return predicate, tuple(names.split(", ")) if names else ()
