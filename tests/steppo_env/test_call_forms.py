import math

import pytest
from pydantic import JsonValue

from steppo_env.mdp import Action, IssueKind, ToolCall
from steppo_env.parsing import parse_message, parse_text

CALL = '<tool_call>{"name": "search", "arguments": {"query": "x"}}</tool_call>'
SEARCH = ToolCall("search", {"query": "x"})


def tool_call(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


def kinds(action: Action) -> list[IssueKind]:
    return [issue.kind for issue in action.issues]


def only_detail(action: Action, kind: IssueKind) -> str:
    assert kinds(action) == [kind]
    return action.issues[0].detail


# --- tool calls


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ('{"name": "a", "arguments": {}}', {}),
        ('{"name": "a"}', {}),
        ('\n {"name": "a", "arguments": {"n": 1}}\n ', {"n": 1}),
        ('{"arguments": {"n": [1, null]}, "name": "a", "id": "x"}', {"n": [1, None]}),
        ('{"name": "a", "arguments": {"t": "</tool_call>"}}', {"t": "</tool_call>"}),
        ('{"name": "a", "arguments": {"t": "<answer>4</answer>"}}', {"t": "<answer>4</answer>"}),
        ('{"name": "a", "arguments": {"t": "</think>"}}', {"t": "</think>"}),
        ('{"name": "a", "arguments": {"t": "\\ud83d\\ude00"}}', {"t": "😀"}),
    ],
)
def test_a_well_formed_call_has_no_issue(body: str, arguments: dict[str, JsonValue]) -> None:
    action = parse_text(tool_call(body))
    assert action == Action(tool_call(body), (ToolCall("a", arguments),))


def test_calls_keep_their_order() -> None:
    text = "".join(tool_call(f'{{"name": "t{index}"}}') for index in range(3))
    assert [call.name for call in parse_text(text).tool_calls] == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("{'name': 'search', 'arguments': {'query': 'x'}}", "single-quoted"),
        ('{"name": "search", "arguments": {"query": "x",},}', "trailing commas"),
        ('{"name": "search", "parameters": {"query": "x"}}', '"parameters"'),
        ('{"function": {"name": "search", "arguments": {"query": "x"}}}', '"function"'),
        ('[{"name": "search", "arguments": {"query": "x"}}]', "list"),
        (r'{"name": "search", "arguments": "{\"query\": \"x\"}"}', "a string"),
    ],
)
def test_a_call_in_another_form_is_recovered_and_the_form_named(body: str, word: str) -> None:
    action = parse_text(tool_call(body))
    assert action.tool_calls == (SEARCH,)
    assert word in only_detail(action, IssueKind.RECOVERED)


def test_python_literals_and_raw_line_breaks_are_recovered() -> None:
    action = parse_text(tool_call('{"name": "a", "arguments": {"x": [True, None], "t": "1\n2"}}'))
    assert action.tool_calls == (ToolCall("a", {"x": [True, None], "t": "1\n2"}),)
    assert kinds(action) == [IssueKind.RECOVERED]


def test_an_arguments_string_may_itself_be_relaxed() -> None:
    action = parse_text(tool_call('{"name": "search", "arguments": "{\'query\': \'x\',}"}'))
    assert action.tool_calls == (SEARCH,)
    assert kinds(action) == [IssueKind.RECOVERED] * 2


@pytest.mark.parametrize("rest", ["", " \n", "<answer>4</answer>", CALL, "</act>"])
def test_a_complete_call_without_its_closing_tag_is_recovered(rest: str) -> None:
    action = parse_text('<tool_call>{"name": "a"}' + rest)
    assert action.tool_calls[0] == ToolCall("a", {})
    assert "was not closed" in action.issues[0].detail
    assert action.answer == ("4" if "answer" in rest else None)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ("search(x)", "is not JSON: expected a value, but search(x)</tool_call> came"),
        ("", "is not JSON: expected a value, but </tool_call> came"),
        ('{"name": "a"', "is not JSON: expected a comma or }, but </tool_call> came"),
        ('{name: "a"}', "is not JSON: expected a key in double quotes"),
        (
            '{"name": "a", "name": "b"}',
            'is not JSON: expected each key once, but "name" came twice',
        ),
        ('{"name": "a", "arguments": {"n": NaN}}', "is not JSON: expected a value, but NaN}}"),
        ('{"name": "a"} please', "must hold one JSON object and nothing else, but please"),
        ('"a"', "must have a JSON object, but a came"),
        ("[]", "must have a JSON object, but [] came"),
        ("{}", 'must have a tool\'s name, a string, under "name", but {} came'),
        ('{"name": ""}', "must have a tool's name"),
        ('{"name": " "}', "must have a tool's name"),
        ('{"name": 3}', "must have a tool's name"),
        ('{"function": "a"}', "must have a tool's name"),
        ('{"name": "a", "arguments": [1]}', 'must have an object under "arguments", but [1] came'),
        ('{"name": "a", "arguments": null}', 'must have an object under "arguments", but null'),
        ('{"name": "a", "arguments": "x"}', 'must have an object under "arguments", but x came'),
        ('{"name": "a", "query": "x"}', "must have its arguments, all of them and only once"),
        ('{"name": "a", "arguments": {}, "parameters": {}}', "must have its arguments"),
    ],
)
def test_what_would_have_to_be_guessed_is_rejected_with_what_came(body: str, detail: str) -> None:
    action = parse_text(CALL + tool_call(body))
    assert action.tool_calls == (SEARCH,)
    assert kinds(action) == [IssueKind.REJECTED]
    assert action.rejections[0].startswith(f"tool call 2 {detail}")
    assert action.rejections[0].endswith('{"name": "...", "arguments": {...}}</tool_call>')


def test_an_answer_inside_a_rejected_call_is_no_answer() -> None:
    action = parse_text('<tool_call>{"name": say, "x": "<answer>4</answer>"}</tool_call>')
    assert (action.answer, kinds(action)) == (None, [IssueKind.REJECTED])


def test_an_answer_inside_a_call_refused_after_reading_is_no_answer() -> None:
    action = parse_text('<tool_call>{"n": 1, "n": "</tool_call><answer>4</answer>"}')
    assert (action.answer, kinds(action)) == (None, [IssueKind.REJECTED])


def test_the_good_calls_of_a_list_are_executed_and_the_others_rejected() -> None:
    action = parse_text(tool_call('[{"name": "a"}, 3, {"name": "b"}]'))
    assert [call.name for call in action.tool_calls] == ["a", "b"]
    assert action.rejections[0].startswith("tool call 2 must have a JSON object, but 3 came")


def test_a_rejection_quotes_only_a_little_on_one_line() -> None:
    (rejection,) = parse_text(tool_call("word\n" * 1000)).rejections
    assert len(rejection) < 250
    assert "\n" not in rejection


# --- native messages


def native(name: JsonValue, arguments: JsonValue, **more: JsonValue) -> dict[str, JsonValue]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def message(
    *calls: JsonValue, content: JsonValue = None, **more: JsonValue
) -> dict[str, JsonValue]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def test_native_calls_come_first_with_their_ids() -> None:
    action = parse_message(
        message(native("a", '{"n": 1}', id="c9"), native("b", "{}"), content=f"hm {CALL}")
    )
    assert action.tool_calls == (ToolCall("a", {"n": 1}, "c9"), ToolCall("b", {}, "call_1"), SEARCH)
    assert (action.content, action.issues) == (f"hm {CALL}", ())


@pytest.mark.parametrize("call_id", [None, "", 3, ["x"]])
def test_a_missing_id_is_made_from_the_index(call_id: JsonValue) -> None:
    action = parse_message(message(native("a", "{}", id=call_id)))
    assert [call.call_id for call in action.tool_calls] == ["call_0"]


@pytest.mark.parametrize("arguments", [None, "", " "])
def test_a_native_call_without_arguments_is_normal(arguments: JsonValue) -> None:
    action = parse_message(message(native("a", arguments)))
    assert (action.tool_calls, action.issues) == ((ToolCall("a", {}, "call_0"),), ())


@pytest.mark.parametrize("arguments", ["{'n': 1}", '{"n": 1,}', {"n": 1}])
def test_native_arguments_of_another_form_are_recovered(arguments: JsonValue) -> None:
    action = parse_message(message(native("a", arguments)))
    assert action.tool_calls == (ToolCall("a", {"n": 1}, "call_0"),)
    assert kinds(action) == [IssueKind.RECOVERED]


@pytest.mark.parametrize(
    ("call", "detail"),
    [
        (
            native("a", '{"n": 1'),
            "the arguments of tool call 1 are not JSON: expected a comma or }",
        ),
        (native("a", "[1]"), "the arguments of tool call 1 must be a JSON object, but [1] came"),
        (native("a", 3), "the arguments of tool call 1 must be a JSON object, but 3 came"),
        (native("a", {"n": math.inf}), "the arguments of tool call 1 are not JSON"),
        (native("", "{}"), "tool call 1 has no name"),
        (native(["a"], "{}"), "tool call 1 has no name"),
        ({"id": "x"}, 'tool call 1 must have an object under "function"'),
        ("a", 'tool call 1 must have an object under "function"'),
    ],
)
def test_a_native_call_that_cannot_be_read_is_rejected(call: JsonValue, detail: str) -> None:
    action = parse_message(message(call, native("b", "{}")))
    assert action.tool_calls == (ToolCall("b", {}, "call_1"),)
    assert action.rejections[0].startswith(detail)
    assert kinds(action)[-1] is IssueKind.REJECTED


def test_calls_in_the_content_are_numbered_after_the_native_ones() -> None:
    action = parse_message(message(native("a", "{}"), content="<tool_call>x</tool_call>"))
    assert action.rejections[0].startswith("tool call 2 is not JSON")
