"""Reads the JSON that language models write: strict JSON, and a few slips with only one meaning.

One scanner copies a value, token by token, into strict JSON text, notes each slip it repairs, and
dies at the first token that does not fit; `json` then decodes the copy. What is not listed in
`RELAXATIONS` is refused with a reason: to close a bracket or quote a key would be guessing.

The scan is linear, and so is a scan from each of many tags in one text. A reading that is outside
a string when the next tag comes dies there, because `<` begins no JSON token. Every quotation mark
permutes the states (outside, in "...", in '...'), so readings that began at different tags never
meet in one state: at any character at most three of them are alive.
"""

import json
import math
import re
from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

__all__ = ["RELAXATIONS", "Reading", "Unreadable", "excerpt", "read_document", "read_json"]

SINGLE_QUOTES: Final = "single-quoted strings"
TRAILING_COMMAS: Final = "trailing commas"
PYTHON_LITERALS: Final = "Python's True, False or None"
CONTROL_CHARACTERS: Final = "raw line breaks or control characters inside strings"
SURROGATES: Final = "lone surrogates, replaced by U+FFFD"

RELAXATIONS = (SINGLE_QUOTES, TRAILING_COMMAS, PYTHON_LITERALS, CONTROL_CHARACTERS, SURROGATES)

# Well under the interpreter's recursion limit and pydantic's, so that the verdict on a text does
# not depend on how deep the caller's stack happens to be.
MAX_DEPTH: Final = 100

# Possessive quantifiers (*+, ++): a string that is never closed fails without backtracking.
_TOKEN = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<string>"(?:[^"\\]++|\\.)*+"|'(?:[^'\\]++|\\.)*+')
      | (?P<number>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)
      | (?P<word>[A-Za-z_]\w*+)
      | (?P<mark>[{}\[\]:,])
    )""",
    re.VERBOSE | re.DOTALL,
)
_SPACE = re.compile(r"[ \t\n\r]*+")
_SPECIAL = re.compile(
    r"""\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}  # a whole surrogate pair
      | \\u[0-9a-fA-F]{4} | \\. | ["\x00-\x1f\ud800-\udfff]""",
    re.VERBOSE | re.DOTALL,
)
_LONE = re.compile(r"\\u[dD][89a-fA-F]")
_LITERALS = ("true", "false", "null")
_PYTHON = {"True": "true", "False": "false", "None": "null"}

# What the scanner waits for, in the words of its messages.
_VALUE: Final = "a value"
_FIRST_ITEM: Final = "a value or ]"
_ITEM: Final = "another value"
_FIRST_KEY: Final = "a key in double quotes or }"
_KEY: Final = "another key in double quotes"
_COLON: Final = "a colon"
_COMMA_OR_BRACE: Final = "a comma or }"
_COMMA_OR_BRACKET: Final = "a comma or ]"
_NOTHING: Final = ""  # the value is complete


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that was read.

    Attributes:
        value: Plain JSON: finite floats, unique keys, no lone surrogates.
        end: Index of the first character after the value.
        relaxations: Which of `RELAXATIONS` were needed, in order of first use.
    """

    value: JsonValue
    end: int
    relaxations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why no value was read.

    Attributes:
        reason: A clause for the model, such as "expected a colon, but 3} came".
        end: Where the value ends, when its brackets are in order and only its content is not.
    """

    reason: str
    end: int | None = None


class _Flaw(ValueError):
    """Carries the reason from where it is seen to `read_json`."""


def excerpt(text: str, start: int = 0, limit: int = 60) -> str:
    r"""Quote a little of a text on one line.

    >>> excerpt("one\n  two three", limit=8)
    'one tw…'
    """
    piece = " ".join(text[start : start + limit].split())
    printable = "".join(char if char.isprintable() else "\ufffd" for char in piece)
    return printable + ("…" if len(text) > start + limit else "")


def read_json(
    text: str, start: int = 0, end: int | None = None, *, strict: bool = False
) -> Reading | Unreadable:
    """Read the one JSON value that begins at `start`; what follows it is the caller's concern.

    Args:
        text: Any text.
        start: Where the value, or white space before it, begins.
        end: Where the readable part of the text ends, when that is before its own end.
        strict: Refuse every relaxation except the replacement of lone surrogates.

    >>> read_json("{'ok': True,} and more")
    Reading(value={'ok': True}, end=13, relaxations=('single-quoted strings',
    "Python's True, False or None", 'trailing commas'))
    >>> read_json('{"ok": tru}').reason
    'expected a value, but tru} came'
    """
    scanner = _Scanner(text, start, len(text) if end is None else end, strict)
    stop = None
    try:
        stop = scanner.scan()
        value = _decode("".join(scanner.pieces))
    except _Flaw as flaw:
        return Unreadable(str(flaw), stop)
    return Reading(value, stop, tuple(scanner.relaxations))


def read_document(text: str) -> Reading | Unreadable:
    """Read a text that is one JSON value and nothing else.

    >>> read_document("{} {}").reason
    'expected nothing after the JSON value, but {} came'
    """
    reading = read_json(text)
    if isinstance(reading, Reading):
        rest = _skip_space(text, reading.end, len(text))
        if rest < len(text):
            reason = f"expected nothing after the JSON value, but {excerpt(text, rest)} came"
            return Unreadable(reason, reading.end)
    return reading


class _Scanner:
    """Copies one relaxed value into strict JSON."""

    def __init__(self, text: str, start: int, end: int, strict: bool) -> None:
        self.pieces: list[str] = []  # of the strict text
        self.relaxations: dict[str, None] = {}
        self._text, self._position, self._end = text, start, end
        self._is_strict = strict
        self._due: list[str] = []  # the closing brackets that must still come, innermost last

    def scan(self) -> int:
        """Copy one value and return the index after it."""
        expected = _VALUE
        while expected != _NOTHING:
            token = _TOKEN.match(self._text, self._position, self._end)
            if token is None or token.lastgroup is None:
                raise self._unexpected(expected)
            kind, symbol = token.lastgroup, token[token.lastgroup]
            if kind == "mark":
                expected = self._take_mark(expected, symbol)
            elif expected in (_FIRST_KEY, _KEY) and kind == "string":
                self.pieces.append(self._string(symbol))
                expected = _COLON
            elif expected in (_VALUE, _FIRST_ITEM, _ITEM):
                self.pieces.append(self._scalar(kind, symbol, expected))
                expected = self._after_value()
            else:
                raise self._unexpected(expected)
            self._position = token.end()
        return self._position

    def _take_mark(self, expected: str, mark: str) -> str:
        if mark in "{[" and expected in (_VALUE, _FIRST_ITEM, _ITEM):
            if len(self._due) == MAX_DEPTH:
                raise _Flaw(f"expected at most {MAX_DEPTH} nested brackets, but more came")
            self._due.append("}" if mark == "{" else "]")
            self.pieces.append(mark)
            return _FIRST_KEY if mark == "{" else _FIRST_ITEM
        if mark == ":" and expected == _COLON:
            self.pieces.append(mark)
            return _VALUE
        if mark == "," and expected in (_COMMA_OR_BRACE, _COMMA_OR_BRACKET):
            self.pieces.append(mark)
            return _KEY if expected == _COMMA_OR_BRACE else _ITEM
        if expected in (_VALUE, _COLON) or not self._due or mark != self._due[-1]:
            raise self._unexpected(expected)
        if expected in (_KEY, _ITEM):
            self._relax(TRAILING_COMMAS, expected)
            self.pieces.pop()
        self.pieces.append(self._due.pop())
        return self._after_value()

    def _after_value(self) -> str:
        if not self._due:
            return _NOTHING
        return _COMMA_OR_BRACE if self._due[-1] == "}" else _COMMA_OR_BRACKET

    def _scalar(self, kind: str, symbol: str, expected: str) -> str:
        if kind == "string":
            return self._string(symbol)
        if kind == "number":
            return symbol
        if symbol in _PYTHON:
            self._relax(PYTHON_LITERALS, expected)
            return _PYTHON[symbol]
        if symbol not in _LITERALS:
            raise self._unexpected(expected)
        return symbol

    def _string(self, literal: str) -> str:
        quote, body = literal[0], literal[1:-1]
        if quote == "'":
            self._relax(SINGLE_QUOTES, "a string in double quotes")
        if _SPECIAL.search(body):
            body = _SPECIAL.sub(lambda match: self._special(match[0], quote), body)
        return f'"{body}"'

    def _special(self, found: str, quote: str) -> str:
        """Return the strict spelling of an escape or of a character that JSON wants escaped."""
        if len(found) == 1:
            if found == '"':
                return r"\""
            if found < " ":
                self._relax(CONTROL_CHARACTERS, "line breaks in strings to be written as \\n")
                return f"\\u{ord(found):04x}"
        elif len(found) == 2:
            if found == r"\'" and quote == "'":
                return "'"
            if found[1] not in '"\\/bfnrt':
                raise _Flaw(
                    f"expected a JSON escape such as \\n or \\\\, but {excerpt(found)} came"
                )
            return found
        elif len(found) == 12 or not _LONE.match(found):
            return found
        self.relaxations[SURROGATES] = None
        return r"\ufffd"

    def _relax(self, relaxation: str, expected: str) -> None:
        if self._is_strict:
            raise _Flaw(f"expected {expected}, but {relaxation} came")
        self.relaxations[relaxation] = None

    def _unexpected(self, expected: str) -> _Flaw:
        position = _skip_space(self._text, self._position, self._end)
        if position == len(self._text):
            return _Flaw(f"expected {expected}, but the text ended")
        found = excerpt(self._text, position)
        if self._text[position] in "\"'" and _TOKEN.match(self._text, position, self._end) is None:
            return _Flaw(f"expected the closing quote of the string {found}")
        return _Flaw(f"expected {expected}, but {found} came")


def _skip_space(text: str, start: int, end: int) -> int:
    space = _SPACE.match(text, start, end)
    return start if space is None else space.end()


def _decode(strict_text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(
            strict_text, object_pairs_hook=_unique, parse_float=_finite, parse_int=_integer
        )
    except RecursionError:
        raise _Flaw("expected fewer nested brackets") from None
    return value


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value: dict[str, JsonValue] = {}
    for key, item in pairs:
        if key in value:
            raise _Flaw(f'expected each key once, but "{excerpt(key)}" came twice')
        value[key] = item
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Flaw(f"expected a finite number, but {excerpt(digits)} came")
    return number


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # the interpreter's limit on digits
        raise _Flaw(f"expected a shorter number, but {excerpt(digits, limit=20)} came") from None
