import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_env.relaxed_json import (
    CONTROL_CHARACTERS,
    MAX_DEPTH,
    PYTHON_LITERALS,
    SINGLE_QUOTES,
    SURROGATES,
    TRAILING_COMMAS,
    Reading,
    Unreadable,
    read_document,
    read_json,
)

ANY_TEXT = st.text(st.characters())  # with surrogates
JSON_TEXT = st.lists(
    st.sampled_from(
        [
            *(
                '"',
                "'",
                "\\",
                "{",
                "}",
                "[",
                "]",
                ":",
                ",",
                " ",
                "\n",
                "1",
                "-",
                ".5",
                "e9",
                "True",
            ),
            *("null", "\\u", "d800", "\\udc00", "\ud800", "a", "NaN", "\x00", '"a":', "é", "\\n"),
        ]
    )
).map("".join)
PLAIN_STRING = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUE: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | PLAIN_STRING,
    lambda inner: st.lists(inner) | st.dictionaries(PLAIN_STRING, inner),
    max_leaves=12,
)


def reason(text: str) -> str:
    reading = read_document(text)
    assert isinstance(reading, Unreadable), reading
    return reading.reason


@settings(deadline=None)  # a busy machine is no failure
@given(JSON_VALUE, st.booleans(), st.sampled_from([None, 2]))
def test_strict_json_is_read_without_a_relaxation(
    value: JsonValue, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert read_json(text + " rest", strict=True) == Reading(value, len(text))


@settings(deadline=None)
@given(JSON_VALUE)
def test_a_python_literal_is_read_like_the_value_it_spells(value: JsonValue) -> None:
    # repr() escapes as \x.. and \U..., which is no JSON; such strings must be refused, not altered.
    reading = read_document(repr(value))
    if isinstance(reading, Reading):
        assert reading.value == value


@pytest.mark.parametrize(
    ("text", "value", "relaxation"),
    [
        ("{'a': 'b'}", {"a": "b"}, SINGLE_QUOTES),
        (r"""{'say "hi"': 'it\'s'}""", {'say "hi"': "it's"}, SINGLE_QUOTES),
        ("[1, 2, ]", [1, 2], TRAILING_COMMAS),
        ('{"a": {"b": 1,},}', {"a": {"b": 1}}, TRAILING_COMMAS),
        ("[True, False, None]", [True, False, None], PYTHON_LITERALS),
        ('"two\nlines\tand a tab"', "two\nlines\tand a tab", CONTROL_CHARACTERS),
        (r'"\ud800 and \udc00"', "\ufffd and \ufffd", SURROGATES),
        ('"\ud800"', "\ufffd", SURROGATES),
    ],
)
def test_each_relaxation_is_read_and_named(text: str, value: JsonValue, relaxation: str) -> None:
    assert read_document(text) == Reading(value, len(text), (relaxation,))


def test_relaxations_are_named_once_each_in_the_order_of_use() -> None:
    reading = read_document("{'a': True, 'b': [None,],}")
    assert isinstance(reading, Reading)
    assert reading.relaxations == (SINGLE_QUOTES, PYTHON_LITERALS, TRAILING_COMMAS)


@pytest.mark.parametrize("text", ["{'a': 1}", "[1,]", "True", '"\n"'])
def test_a_strict_reading_refuses_every_relaxation_of_the_syntax(text: str) -> None:
    assert isinstance(read_json(text, strict=True), Unreadable)
    assert isinstance(read_json(text), Reading)


def test_a_strict_reading_replaces_lone_surrogates_since_their_escapes_are_json() -> None:
    assert read_json(r'"\ud83d\ude00 \ud83d"', strict=True) == Reading(
        "😀 \ufffd", 21, (SURROGATES,)
    )


def test_an_escaped_backslash_before_u_is_no_surrogate() -> None:
    assert read_document(r'"\\ud800"') == Reading(r"\ud800", 9)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a value, but the text ended"),
        ('{"a": 1', "expected a comma or }, but the text ended"),
        ("[1, 2", "expected a comma or ], but the text ended"),
        ("[1}", "expected a comma or ], but } came"),
        ("{a: 1}", "expected a key in double quotes or }, but a: 1} came"),
        ("{1: 1}", "expected a key in double quotes or }, but 1: 1} came"),
        ('{"a" 1}', "expected a colon, but 1} came"),
        ('{"a": }', "expected a value, but } came"),
        ('{"a": 1 "b": 2}', 'expected a comma or }, but "b": 2} came'),
        ("[1,,]", "expected another value, but ,] came"),
        ("[,]", "expected a value or ], but ,] came"),
        ("{,}", "expected a key in double quotes or }, but ,} came"),
        ('["open]', 'expected the closing quote of the string "open]'),
        ("{'q': 'it's'}", "expected a comma or }, but s'} came"),
        ("nan", "expected a value, but nan came"),
        ("NaN", "expected a value, but NaN came"),
        ("-Infinity", "expected a value, but -Infinity came"),
        ("1e999", "expected a finite number, but 1e999 came"),
        ("01", "expected nothing after the JSON value, but 1 came"),
        ("{} and", "expected nothing after the JSON value, but and came"),
        ('{"a": 1, "a": 1}', 'expected each key once, but "a" came twice'),
        ('{"a": 1, "\\u0061": 1}', 'expected each key once, but "a" came twice'),
        (r'"\x41"', r"expected a JSON escape such as \n or \\, but \x came"),
        (r'"it\'s"', r"expected a JSON escape such as \n or \\, but \' came"),
        ('"\\u12"', r"expected a JSON escape such as \n or \\, but \u came"),
        ("9" * 5000, "expected a shorter number, but 99999999999999999999… came"),
        ("// note\n1", "expected a value, but // note 1 came"),
    ],
)
def test_what_would_have_to_be_guessed_is_refused_with_what_came(text: str, expected: str) -> None:
    assert reason(text) == expected


def test_keys_that_become_equal_by_replacing_surrogates_are_refused() -> None:
    assert (
        reason(r'{"\ud800": 1, "\ud801": 2}') == 'expected each key once, but "\ufffd" came twice'
    )


def test_a_value_whose_brackets_are_in_order_has_an_end_even_when_refused() -> None:
    assert read_json('{"a": 1, "a": 2} rest') == Unreadable(
        'expected each key once, but "a" came twice', 16
    )


def test_nesting_is_read_up_to_a_fixed_depth_and_refused_beyond() -> None:
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert isinstance(read_document(deepest), Reading)
    assert "nested" in reason(f"[{deepest}]")
    assert "nested" in reason("[" * 200_000)


def test_nothing_beyond_the_given_end_is_read() -> None:
    assert isinstance(read_json('["a", "b"]', end=6), Unreadable)
    assert isinstance(read_json("'a'b'", end=2), Unreadable)
    assert read_json("12345", 1, 3) == Reading(23, 3)


@settings(deadline=None)
@given(ANY_TEXT | JSON_TEXT)
def test_any_text_is_read_or_refused_but_never_raises(text: str) -> None:
    for reading in (read_json(text), read_document(text)):
        if isinstance(reading, Reading):
            again = json.dumps(reading.value, ensure_ascii=False, allow_nan=False)
            assert json.loads(again) == reading.value
            again.encode()
        else:
            assert len(reading.reason) < 200
            assert "\n" not in reading.reason


@settings(deadline=None)
@given(JSON_TEXT)
def test_what_json_reads_is_read_with_the_same_value(text: str) -> None:
    try:
        value = json.loads(text)
        canonical = json.dumps(value, allow_nan=False).encode().decode()
    except ValueError:
        return
    reading = read_document(text)
    if isinstance(reading, Reading):
        assert SURROGATES in reading.relaxations or json.dumps(reading.value) == canonical
    else:
        assert "each key once" in reading.reason


@pytest.mark.parametrize(
    "text",
    [
        '"' + "a" * 200_000,
        '"' + "\\" * 200_001,
        '"' + '\\"' * 100_000,
        "'" + "\\n" * 100_000,
        " " * 200_000 + "?",
        "[" + " " * 200_000 + "?",
        "[1," * 66_000,
        "{'a':" * 40_000,
        "-" * 200_000,
        "1" * 200_000,
        "0." + "1" * 200_000 + "x",
        "a" * 200_000,
        "[" + "1," * 100_000,
        "[" + "''," * 66_000,
    ],
    ids=range(14),
)
def test_adversarial_texts_are_refused_in_linear_time(text: str) -> None:
    # No clock: the per-test timeout fails what is quadratic in 200 000 characters of Python.
    assert isinstance(read_document(text), Unreadable)


def test_floats_are_finite_and_exact() -> None:
    assert read_document("1e308") == Reading(1e308, 5)
    reading = read_document("-0.0")
    assert isinstance(reading, Reading)
    assert isinstance(reading.value, float)
    assert math.copysign(1, reading.value) == -1
