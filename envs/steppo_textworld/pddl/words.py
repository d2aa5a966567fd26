"""The grammar of a TextWorld-PDDL game: how a state is put into words.

A grammar has rules, which may hang on conditions, and actions, each with a command and an answer. In
the text of a rule `#name#` is another rule, `{o.name | on(o:object, r:shelf)}` is said of everything that
satisfies the condition, and `[...]` around it makes a list. TextWorld's own reader evaluates what
stands in braces as Python, has one global parser, needs 2 ms for a phrase, and fails on Python 3.13,
where `eval` does not see what was put into `locals()`; this one knows names, `+` and `or`, and
nothing else.
"""

import ast
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from steppo_env.errors import EnvError

__all__ = ["ActionWords", "Binding", "Scene", "Words", "read_words"]

Binding = Mapping[str, str]
"""The object that each variable of a phrase stands for."""

MAX_DEPTH = 50
"""Deepest nesting of rules; a grammar that needs more calls itself."""

_TOKEN = re.compile(
    r"\[\{(?P<listed>[^{}|]+)(?:\|(?P<of>[^{}]+))?\}\]"
    r"|\{(?P<said>[^{}|]+)(?:\|(?P<given>[^{}]+))?\}"
    r"|#(?P<rule>[^#\n]+)#"
    r"|(?P<text>[^\[{#]+|.)",
    re.DOTALL,
)
_CONDITION = re.compile(r"\s*(?P<predicate>[\w-]+)\s*\((?P<arguments>[^()]*)\)\s*")
_FIELD = re.compile(
    r"\s*(?P<name>grammar|pddl)\s*::\s*\"\"\"(?P<block>.*?)\"\"\"\s*;"
    r"|\s*(?P<key>template|feedback)\s*::\s*\"(?P<value>[^\"]*)\"\s*;"
    r"|\s*action\s+(?P<action>\w+)\s*\{"
    r"|\s*(?P<end>\})",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class ActionWords:
    """The words of an action: its command and what is told once it is done."""

    template: str
    feedback: str


@dataclass(frozen=True, slots=True)
class Query:
    """One condition: a predicate over variables, each with its type."""

    predicate: str
    variables: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    condition: str
    text: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What a phrase is about.

    Attributes:
        facts: The objects of which each predicate holds, sorted.
        objects: The type of each object.
        types: The supertypes of each type.
        names: What the player calls each object.
    """

    facts: Mapping[str, Sequence[tuple[str, ...]]]
    objects: Mapping[str, str]
    types: Mapping[str, frozenset[str]]
    names: Mapping[str, str]

    def assignments(self, condition: str, bound: Binding) -> Iterator[dict[str, str]]:
        """Yield the ways to satisfy a condition; different variables are different objects."""
        yield from self._extend(_queries(condition), 0, dict(bound))

    def _extend(
        self, queries: Sequence[Query], place: int, bound: dict[str, str]
    ) -> Iterator[dict[str, str]]:
        if place == len(queries):
            yield bound
            return
        query = queries[place]
        for objects in self.facts.get(query.predicate, ()):
            extended = self._matched(query, objects, bound)
            if extended is not None:
                yield from self._extend(queries, place + 1, extended)

    def _matched(
        self, query: Query, objects: Sequence[str], bound: dict[str, str]
    ) -> dict[str, str] | None:
        if len(objects) != len(query.variables):
            return None
        extended = dict(bound)
        for (variable, kind), item in zip(query.variables, objects):
            known = extended.get(variable)
            if known is None:
                if item in extended.values() or not self._is_a(item, kind):
                    return None
                extended[variable] = item
            elif known != item:
                return None
        return extended

    def _is_a(self, item: str, kind: str) -> bool:
        own = self.objects.get(item, "")
        return own == kind or kind in self.types.get(own, frozenset())


class Words:
    """A grammar."""

    def __init__(
        self, rules: Mapping[str, Sequence[_Rule]], actions: Mapping[str, ActionWords]
    ) -> None:
        self._rules = rules
        self.actions = actions

    def has(self, rule: str) -> bool:
        """Return whether there is a rule of this name."""
        return rule in self._rules

    def asks_for(self) -> frozenset[str]:
        """Return the predicates that any condition asks for."""
        texts = [action.template + action.feedback for action in self.actions.values()]
        texts += [rule.text for rules in self._rules.values() for rule in rules]
        conditions = [rule.condition for rules in self._rules.values() for rule in rules]
        return _predicates(texts) | frozenset(
            query.predicate for given in filter(None, conditions) for query in _queries(given)
        )

    def asked_by_command(self, action: str) -> frozenset[str]:
        """Return the predicates that the command of an action depends on."""
        template = self.actions[action].template
        # A rule may ask for anything.
        return self.asks_for() if "#" in template else _predicates([template])

    def say(self, text: str, scene: Scene, bound: Binding) -> str:
        """Put a text of the grammar into words.

        Raises:
            EnvError: It uses a rule that is not there, or what a grammar cannot hold.
        """
        return "".join(self._say(text, scene, bound, MAX_DEPTH))

    def _say(self, text: str, scene: Scene, bound: Binding, depth: int) -> Iterator[str]:
        if depth == 0:
            raise EnvError(f"the grammar of the game nests deeper than {MAX_DEPTH} rules: {text!r}")
        for token in _TOKEN.finditer(text):
            if token["text"] is not None:
                yield token["text"]
            elif token["rule"] is not None:
                yield from self._say_rule(token["rule"], scene, bound, depth)
            elif token["listed"] is not None:
                items = list(self._each(token["listed"], token["of"], scene, bound, depth))
                yield self._as_list(items, scene, bound)
            else:
                yield from self._each(token["said"], token["given"], scene, bound, depth)

    def _say_rule(self, name: str, scene: Scene, bound: Binding, depth: int) -> Iterator[str]:
        for rule in self._rules.get(name, ()):
            if not rule.condition or any(True for _ in scene.assignments(rule.condition, bound)):
                return self._say(rule.text, scene, bound, depth - 1)
        raise EnvError(f"the grammar of the game has no rule for {name!r} that applies")

    def _each(
        self, what: str, given: str | None, scene: Scene, bound: Binding, depth: int
    ) -> Iterator[str]:
        """Yield the words for each way to satisfy the condition; without one, there is one way."""
        what = what.strip()
        for binding in [bound] if given is None else scene.assignments(given, bound):
            if what.startswith("#"):
                yield "".join(self._say(what, scene, binding, depth - 1))
            else:
                yield _evaluate(_expression(what), binding, scene.names)

    def _as_list(self, items: Sequence[str], scene: Scene, bound: Binding) -> str:
        if not items:
            return self.say("#list_empty#", scene, bound)
        if len(items) == 1:
            return items[0]
        separator = self.say("#list_separator#", scene, bound)
        last = self.say("#list_last_separator#", scene, bound)
        return separator.join(items[:-1]) + last + items[-1]


def read_words(grammar: str) -> Words:
    """Read a grammar.

    Raises:
        EnvError: It is not one.
    """
    rules: dict[str, list[_Rule]] = {}
    actions: dict[str, ActionWords] = {}
    fields: dict[str, str] = {}
    action = ""
    place = 0
    while place < len(grammar) and grammar[place:].strip():
        found = _FIELD.match(grammar, place)
        if found is None:
            raise EnvError(f"the grammar of the game cannot be read at {grammar[place:][:80]!r}")
        place = found.end()
        if found["action"] is not None:
            action, fields = found["action"].lower(), {}
        elif found["key"] is not None:
            fields[found["key"]] = found["value"]
        elif found["name"] == "grammar":
            _add_rules(rules, found["block"])
        elif found["end"] is not None:
            actions[action] = ActionWords(fields.get("template", ""), fields.get("feedback", ""))
    return Words(rules, actions)


def _add_rules(rules: dict[str, list[_Rule]], block: str) -> None:
    kept = [
        line for line in textwrap.dedent(block).splitlines() if not line.lstrip().startswith("#")
    ]
    try:
        read: dict[str, list[dict[str, Any]]] = json.loads("\n".join(kept))
        for name, given in read.items():
            rules.setdefault(name, []).extend(
                _Rule(str(rule.get("condition", "")), str(rule["rhs"])) for rule in given
            )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EnvError(f"a grammar of the game is not JSON of rules: {error!r}") from error


def _predicates(texts: Iterable[str]) -> frozenset[str]:
    tokens = [token for text in texts for token in _TOKEN.finditer(text)]
    given = [token["of"] or token["given"] for token in tokens]
    return frozenset(query.predicate for one in given if one for query in _queries(one))


@lru_cache(maxsize=1024)
def _queries(condition: str) -> tuple[Query, ...]:
    queries: list[Query] = []
    for part in condition.split("&"):
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise EnvError(f"the grammar of the game has a condition that is none: {condition!r}")
        variables = []
        for argument in filter(None, map(str.strip, found["arguments"].split(","))):
            name, _, kind = argument.partition(":")
            variables.append((name.strip(), kind.strip()))
        queries.append(Query(found["predicate"], tuple(variables)))
    return tuple(queries)


@lru_cache(maxsize=1024)
def _expression(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise EnvError(
            f"the grammar of the game has an expression that is none: {text!r}"
        ) from error


def _evaluate(node: ast.expr, bound: Binding, names: Mapping[str, str]) -> str:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _evaluate(left, bound, names) + _evaluate(right, bound, names)
        case ast.BoolOp(op=ast.Or(), values=values):
            return next(filter(None, (_evaluate(value, bound, names) for value in values)), "")
        case ast.Name(id=variable) | ast.Attribute(value=ast.Name(id=variable), attr="name"):
            return names[_bound(variable, bound)]
        case ast.Attribute(value=ast.Name(id=variable), attr="id"):
            return _bound(variable, bound)
        case ast.Attribute(value=ast.Name(id=_), attr="indefinite"):
            return "a"
        case ast.Attribute(value=ast.Name(id=_), attr="definite"):
            return "the"
    raise EnvError(f"the grammar of the game has an expression nobody knows: {ast.unparse(node)!r}")


def _bound(variable: str, bound: Binding) -> str:
    item = bound.get(variable)
    if item is None:
        raise EnvError(f"the grammar of the game speaks of {variable!r}, which nothing is")
    return item
