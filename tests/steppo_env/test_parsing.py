import json
import math
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from steppo_env.mdp import Action, IssueKind, ToolCall
from steppo_env.parsing import parse_message, parse_text

FRAGMENTS = [
    *(f"<{slash}{name}>" for slash in ("", "/") for name in ("think", "analysis", "tool_call")),
    *(f"<{slash}{name}>" for slash in ("", "/") for name in ("answer", "action", "act")),
    *("<", ">", "</", "tool_call>", "<tool_ca", "think", '"', "'", "\\", "{", "}", "[", "]", ":"),
    *(",", "\n", " ", '{"name": "a", "arguments": ', '{"name":', "['", "{'name': '", '"name": "b"'),
    *("```json", "```", "\\ud800", "\ud800", "True", "1e999", '"a"', "'b'", "x"),
]
ANY_TEXT = st.text(st.characters())  # with surrogates
TAGGED_TEXT = st.lists(st.sampled_from(FRAGMENTS) | ANY_TEXT, max_size=12).map("".join)
PLAIN_STRING = st.lists(
    st.sampled_from([item for item in FRAGMENTS if item != "\ud800"])
    | st.text(st.characters(exclude_categories=["Cs"])),
    max_size=3,
).map("".join)
JSON_VALUE: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | PLAIN_STRING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN_STRING, inner, max_size=3),
    max_leaves=5,
)
ANY_JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | TAGGED_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=6,
)
NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)

CALL = '<tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>'
SEARCH = ToolCall("search", {"query": "x"})


def tool_call(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


def kinds(action: Action) -> list[IssueKind]:
    return [issue.kind for issue in action.issues]


def only_detail(action: Action, kind: IssueKind) -> str:
    assert kinds(action) == [kind]
    return action.issues[0].detail


def floats(value: object) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from floats(item)
    elif isinstance(value, list):
        for item in value:
            yield from floats(item)


def assert_is_sound(action: Action) -> None:
    """An action can be stored, sent and executed, and its issues are sentences of one line."""
    texts = [action.content, action.answer or "-", action.reasoning or "-", *action.commands]
    for call in action.tool_calls:
        texts += [call.name, call.call_id or "-", json.dumps(call.arguments, ensure_ascii=False)]
        assert call.name.strip()
        assert all(math.isfinite(number) for number in floats(call.arguments))
    assert all(texts[1:])
    "".join(texts).encode()
    for issue in action.issues:
        assert len(issue.detail) < 400
        assert "\n" not in issue.detail


# --- any input


@settings(deadline=None)  # a busy machine is no failure
@given(ANY_TEXT | TAGGED_TEXT)
def test_any_text_is_parsed_without_raising(text: str) -> None:
    action = parse_text(text)
    assert_is_sound(action)
    assert len(action.content) == len(text)


@settings(deadline=None)
@given(TAGGED_TEXT, NAME, st.dictionaries(PLAIN_STRING, JSON_VALUE, max_size=3), TAGGED_TEXT)
@example("<tool_call>['", "rm", {}, "']</tool_call>")
@example("<think>", "say", {"text": "</think>"}, "")
@example("<tool_call>{'name': 'a', 'arguments': {'x': '", "b", {}, "'}}</tool_call>")
@example("<answer>", "b", {"text": "</answer><tool_call>"}, "</answer>")
def test_a_well_formed_call_is_never_lost_outside_closed_reasoning(
    before: str, name: str, arguments: dict[str, JsonValue], after: str
) -> None:
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    action = parse_text(before + tool_call(body) + after)
    if ToolCall(name, arguments) not in action.tool_calls:
        assert any(f"<{tag}>" in before and f"</{tag}>" in after for tag in ("think", "analysis"))
        assert any("inside <" in issue.detail for issue in action.issues)


@settings(deadline=None)
@given(st.dictionaries(ANY_TEXT, ANY_JSON, max_size=3))
def test_any_message_is_parsed_without_raising(message: dict[str, JsonValue]) -> None:
    assert_is_sound(parse_message(message))


FUNCTION = st.fixed_dictionaries({}, optional={"name": ANY_JSON, "arguments": ANY_JSON}) | ANY_JSON
NATIVE_CALL = st.fixed_dictionaries({}, optional={"id": ANY_JSON, "function": FUNCTION}) | ANY_JSON


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "content": ANY_JSON,
            "reasoning_content": ANY_JSON,
            "tool_calls": st.lists(NATIVE_CALL, max_size=3) | ANY_JSON,
        },
    )
)
def test_a_message_of_wrong_types_is_parsed_without_raising(message: dict[str, JsonValue]) -> None:
    assert_is_sound(parse_message(message))


MANY = 200_000
ADVERSARIAL = [
    part * (MANY // len(part))
    for part in (
        *("<think>", "</think>", "<tool_call>", "</tool_call>", "<answer>", "<act>", "</act>"),
        *(
            "<think><tool_call>",
            "<think></think>",
            "<tool_call>{",
            '<tool_call>{"',
            "<tool_call>['",
        ),
        *("<tool_call>[", '<tool_call>"', "<tool_call>[1,'", '<tool_call>["a", \'', "<action>a"),
        *(
            CALL,
            "<tool_call>{}",
            "<answer>x</answer>",
            "<analysis></think>",
            "<tool_call>x<answer>",
        ),
        *("{", "```", " ", "\ud800", '<tool_call>{"name":"a"}', "<tool_call>[[[[[[[[[[[[["),
        *("<tool_call>[\" , ' , \" , '", "<tool_call>{'a': \"", "<", "</", "<tool_call> \n "),
    )
] + ["<tool_call>" + " " * MANY, "<tool_call>[" + "{}," * (MANY // 3) + "{}]</tool_call>"]


@pytest.mark.parametrize("text", ADVERSARIAL, ids=range(len(ADVERSARIAL)))
def test_adversarial_texts_are_parsed_in_linear_time(text: str) -> None:
    # No clock: the per-test timeout fails what is quadratic in 200 000 characters of Python.
    action = parse_text(text)
    assert len(action.content) == len(text)
    assert len(action.issues) < 60, "the model would drown in feedback"


# --- reasoning


@pytest.mark.parametrize("name", ["think", "analysis"])
def test_reasoning_is_kept_and_not_executed(name: str) -> None:
    action = parse_text(f"<{name}> I could {CALL} </{name}>\n<answer>4</answer>")
    assert action.reasoning == f"I could {CALL}"
    assert (action.tool_calls, action.answer) == ((), "4")
    detail = only_detail(action, IssueKind.IGNORED)
    assert detail == (f"a <tool_call> inside <{name}> was not executed; write it after </{name}>")


@pytest.mark.parametrize("inner", ["<answer>4</answer>", "<action>go</action>", "<act>go</act>"])
def test_an_answer_or_command_inside_reasoning_is_ignored_and_reported(inner: str) -> None:
    action = parse_text(f"<think>{inner}</think>")
    assert (action.answer, action.commands, kinds(action)) == (None, (), [IssueKind.IGNORED])


def test_several_pieces_of_reasoning_are_joined_by_newlines() -> None:
    action = parse_text("<think>a</think> x <analysis> b </analysis><think> </think>")
    assert (action.reasoning, action.issues) == ("a\nb", ())


def test_empty_reasoning_is_none() -> None:
    assert parse_text("<think>\n\n</think>hello") == Action("<think>\n\n</think>hello")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (CALL, Action("", (SEARCH,))),
        ("<answer>4</answer>", Action("", answer="4")),
        ("<action>go</action>", Action("", commands=("go",))),
        ("<act>go</act>", Action("", commands=("go",))),
    ],
)
def test_unclosed_reasoning_ends_where_the_model_acts(act: str, expected: Action) -> None:
    action = parse_text(f"<think>so then {act}")
    assert action.tool_calls == expected.tool_calls
    assert (action.answer, action.commands) == (expected.answer, expected.commands)
    assert action.reasoning == "so then"
    assert "</think>" in only_detail(action, IssueKind.RECOVERED)


def test_unclosed_reasoning_without_an_act_runs_to_the_end() -> None:
    action = parse_text("<think>so then")
    assert (action.reasoning, kinds(action)) == ("so then", [IssueKind.RECOVERED])


def test_reasoning_closed_by_the_other_tag_ends_there() -> None:
    action = parse_text("<act>go</act><analysis>a</think> b <answer>4</answer>")
    assert (action.reasoning, action.answer) == ("a", "4")
    assert kinds(action) == [IssueKind.RECOVERED]


def test_text_before_an_orphan_closing_tag_is_reasoning_of_a_template_that_opened_it() -> None:
    action = parse_text(f"two hops</think>{CALL}")
    assert (action.reasoning, action.tool_calls, action.issues) == ("two hops", (SEARCH,), ())


def test_an_orphan_closing_tag_after_an_act_is_ignored() -> None:
    action = parse_text(f"{CALL} text</think>")
    assert (action.reasoning, action.tool_calls) == (None, (SEARCH,))
    assert kinds(action) == [IssueKind.IGNORED]


# --- answers and commands


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer> Alan\nTuring </answer>", "Alan\nTuring"),
        ("<answer>a</answer><answer>b</answer>", "b"),
        ("so: <answer>4</answer>.", "4"),
    ],
)
def test_the_last_answer_wins_stripped(text: str, answer: str) -> None:
    assert parse_text(text) == Action(text, answer=answer)


@pytest.mark.parametrize("rest", ["", f"\n{CALL}", "</action>"])
def test_an_unclosed_answer_is_recovered_up_to_the_next_tag(rest: str) -> None:
    action = parse_text(f"<answer> 4 {rest}")
    assert action.answer == "4"
    assert action.issues[0].kind is IssueKind.RECOVERED
    assert "</answer>" in action.issues[0].detail


@pytest.mark.parametrize("text", ["<answer></answer>", "<answer> \n</answer>", "<answer>"])
def test_an_empty_answer_is_rejected(text: str) -> None:
    action = parse_text(text)
    assert (action.answer, kinds(action)) == (None, [IssueKind.REJECTED])


def test_an_empty_answer_does_not_undo_a_good_one() -> None:
    action = parse_text("<answer>4</answer><answer></answer>")
    assert (action.answer, kinds(action)) == ("4", [IssueKind.REJECTED])


def test_commands_come_in_order_with_single_spaces() -> None:
    action = parse_text("<action> go \n  east </action><act>take key</act>")
    assert (action.commands, action.issues) == (("go east", "take key"), ())


@pytest.mark.parametrize("text", ["<action>go</act>", "<act>go</action>", "<act>go"])
def test_a_command_with_a_wrong_or_no_closing_tag_is_recovered(text: str) -> None:
    action = parse_text(text)
    assert (action.commands, kinds(action)) == (("go",), [IssueKind.RECOVERED])


def test_an_unclosed_command_ends_at_the_next_tag() -> None:
    action = parse_text("<act>go<action>take key</action>")
    assert (action.commands, kinds(action)) == (("go", "take key"), [IssueKind.RECOVERED])


@pytest.mark.parametrize("text", ["<action></action>", "<act> </act>"])
def test_an_empty_command_is_rejected(text: str) -> None:
    action = parse_text(text)
    assert (action.commands, kinds(action)) == ((), [IssueKind.REJECTED])


# --- calls without tags, surrogates


@pytest.mark.parametrize(
    "frame", ["{}", " {}\n", "```json\n{}\n```", "```{}```", "<think>a</think>{}"]
)
def test_a_response_that_is_only_a_call_is_recovered_without_tags(frame: str) -> None:
    action = parse_text(frame.replace("{}", '{"name": "search", "arguments": {"query": "x"}}'))
    assert action.tool_calls == (SEARCH,)
    assert kinds(action) == [IssueKind.RECOVERED]


@pytest.mark.parametrize(
    "text",
    [
        'I call {"name": "search", "arguments": {}}',
        '{"name": "search"}',
        '{"name": "search", "arguments": {}} done',
        '<think>{"name": "search", "arguments": {}}</think>',
        "{}",
        "plain words",
    ],
)
def test_other_text_without_tags_is_just_text(text: str) -> None:
    action = parse_text(text)
    assert (action.tool_calls, action.issues) == ((), ())


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "a", "arguments": {}}<answer>4</answer>',
        '{"name": "a", "arguments": {"t": "<answer>4</answer>"}}',
    ],
)
def test_json_without_call_tags_is_no_call_where_another_tag_stands(text: str) -> None:
    action = parse_text(text)
    assert (action.tool_calls, action.answer) == ((), "4")


def test_lone_surrogates_in_the_text_are_replaced_and_reported() -> None:
    action = parse_text("a\ud800<answer>\udfff</answer>")
    assert (action.content, action.answer) == ("a\ufffd<answer>\ufffd</answer>", "\ufffd")
    assert kinds(action) == [IssueKind.RECOVERED]


def test_lone_surrogates_from_escapes_are_replaced_and_reported() -> None:
    action = parse_text(tool_call(r'{"name": "a\ud800", "arguments": {"\udc00": ["\ud800x"]}}'))
    assert action.tool_calls == (ToolCall("a\ufffd", {"\ufffd": ["\ufffdx"]}),)
    assert kinds(action) == [IssueKind.RECOVERED]


# --- messages


def test_content_is_parsed_by_the_rules_of_text() -> None:
    text = "<think>a</think><answer>4</answer><act>go"
    assert parse_message({"content": text}) == parse_text(text)


def test_text_parts_are_joined() -> None:
    parts: list[JsonValue] = [{"type": "text", "text": "<answer>4"}, {"text": "2</answer>"}]
    assert parse_message({"content": parts}) == Action("<answer>42</answer>", answer="42")


@pytest.mark.parametrize(
    "wrong",
    [
        {"content": 3},
        {"content": {"text": "a"}},
        {"content": ["a"]},
        {"content": [{"type": "image_url", "image_url": "x"}]},
        {"tool_calls": "a"},
        {"reasoning_content": 3},
    ],
)
def test_wrong_types_in_a_message_are_rejected(wrong: dict[str, JsonValue]) -> None:
    assert kinds(parse_message(wrong)) == [IssueKind.REJECTED]


def test_reasoning_content_joins_the_reasoning() -> None:
    action = parse_message({"reasoning_content": "a", "content": "<think>b</think>c"})
    assert (action.content, action.reasoning) == ("<think>b</think>c", "a\nb")


def test_an_empty_message_is_an_empty_action() -> None:
    assert parse_message({}) == Action("")
