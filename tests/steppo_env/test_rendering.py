"""How a state becomes messages: within a budget, or appended only."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steppo_env.mdp import Action, Message, ToolCall
from steppo_env.rendering import Section, Shrink, Transcript, render_sections

TASK = Section("Task", ("Find it.",))
HISTORY = Section("History", ("walked north", "walked east", "took the key"), Shrink.OLDEST)
RANKED = Section("Results", ("best", "good", "poor"), Shrink.LOWEST)
SECTION = st.builds(
    Section,
    st.sampled_from(["", "H", "Heading"]),
    st.lists(st.text("abc ", max_size=20), max_size=12).map(tuple),
    st.sampled_from(Shrink),
)


def test_sections_stand_whole_and_in_order_when_they_fit() -> None:
    whole = (
        "Task\nFind it.\n\nHistory\nwalked north\nwalked east\ntook the key\n\n"
        "Results\nbest\ngood\npoor"
    )
    assert len(whole) == 13 + 2 + 45 + 2 + 22
    assert render_sections([TASK, HISTORY, RANKED], 84) == whole


def test_the_last_section_gives_up_its_items_first_and_no_more_than_it_takes() -> None:
    head = "Task\nFind it.\n\nHistory\nwalked north\nwalked east\ntook the key\n\nResults\n"
    # The note is longer than what two of these items take.
    assert render_sections([TASK, HISTORY, RANKED], 83) == head + "(3 left out)"
    longer = Section("Results", ("best", "good", "poor" * 5), Shrink.LOWEST)
    assert render_sections([TASK, HISTORY, longer], 99) == head + "best\ngood\n(1 left out)"


def test_of_a_history_the_oldest_go_first() -> None:
    assert render_sections([TASK, HISTORY], 59) == (
        "Task\nFind it.\n\nHistory\n(2 left out)\ntook the key"
    )


def test_an_earlier_section_gives_up_what_the_later_ones_could_not() -> None:
    assert render_sections([HISTORY, TASK, RANKED], 70) == (
        "History\n(2 left out)\ntook the key\n\nTask\nFind it.\n\nResults\n(3 left out)"
    )


def test_what_has_nothing_left_goes_altogether_when_nothing_else_helps() -> None:
    sections = [TASK, HISTORY, RANKED]
    notes = "Task\nFind it.\n\nHistory\n(3 left out)\n\nResults\n(3 left out)"
    assert len(notes) == 57
    assert render_sections(sections, 57) == notes
    assert render_sections(sections, 56) == "Task\nFind it.\n\nHistory\n(3 left out)"
    assert render_sections(sections, 35) == "Task\nFind it.\n\nHistory\n(3 left out)"
    assert render_sections(sections, 34) == "Task\nFind it."
    assert render_sections([HISTORY], 0) == ""


def test_instructions_stay_whole_whatever_the_budget() -> None:
    assert render_sections([HISTORY, TASK], 0) == "Task\nFind it."


def test_empty_sections_take_no_room() -> None:
    empty = [Section("Nothing", ()), Section("Blank", ("",)), Section("Old", (), Shrink.OLDEST)]
    whole = "Task\nFind it.\n\nHistory\nwalked north\nwalked east\ntook the key"
    assert render_sections([empty[0], TASK, empty[1], HISTORY, empty[2]], len(whole)) == whole
    assert render_sections(empty, 100) == ""
    assert render_sections([], 100) == ""


def test_a_section_without_a_heading_is_its_items() -> None:
    assert render_sections([Section("", ("a", "b"))], 10) == "a\nb"
    items = tuple("abcdefghijklmnop")
    assert render_sections([Section("", items, Shrink.OLDEST)], 20) == "(13 left out)\nn\no\np"


def brute_force(sections: list[Section], budget: int) -> list[int]:
    """Remove one item at a time, and measure the whole text after each."""

    def text(kept: list[int]) -> str:
        parts = []
        for section, count in zip(sections, kept):
            if any(section.items):
                out = len(section.items) - count
                note = [f"({out} left out)"] if out else []
                if section.shrink is Shrink.OLDEST:
                    lines = [*note, *section.items[out:]]
                else:
                    lines = [*section.items[:count], *note]
                parts.append("\n".join([section.heading, *lines] if section.heading else lines))
        return "\n\n".join(parts)

    kept = [len(section.items) for section in sections]
    for place in reversed(range(len(sections))):
        if sections[place].shrink is not Shrink.NEVER and any(sections[place].items):
            while len(text(kept)) > budget and kept[place]:
                kept[place] -= 1
    return kept


@given(st.lists(SECTION, max_size=5), st.integers(0, 200))
@example([Section("H", ("a" * 20, "b"), Shrink.LOWEST)], 16)
def test_the_budget_holds_and_what_is_left_out_is_said(
    sections: list[Section], budget: int
) -> None:
    text = render_sections(sections, budget)
    fixed = render_sections([item for item in sections if item.shrink is Shrink.NEVER], 0)
    assert len(text) <= max(budget, len(fixed))
    kept = brute_force(sections, budget)
    expected = []
    for section, count in zip(sections, kept):
        out = len(section.items) - count
        if any(section.items) and out:
            expected.append(f"({out} left out)")
    said = [line for line in text.splitlines() if line.endswith(" left out)")]
    if said != expected:  # not even the notes did fit
        assert text == fixed or (said == expected[: len(said)] and len(text) <= budget)
        assert len(said) < len(expected)


def test_the_cost_of_shrinking_is_not_quadratic() -> None:
    items = tuple(f"line {index}" for index in range(200_000))
    started = time.perf_counter()
    for shrink in (Shrink.OLDEST, Shrink.LOWEST):
        text = render_sections([TASK, Section("Log", items, shrink)], 1_000)
        assert 980 < len(text) <= 1_000
    assert time.perf_counter() - started < 5.0


START = (Message("system", "rules"), Message("user", "start"))


def test_text_is_answered_by_a_user_message() -> None:
    transcript = Transcript(START)
    messages = transcript.extend(Action("<act>go</act>"), "you went")
    assert messages == (
        *START,
        Message("assistant", "<act>go</act>"),
        Message("user", "you went"),
    )
    assert transcript.messages == messages


def test_each_native_call_is_answered_by_a_tool_message() -> None:
    transcript = Transcript(START)
    calls = (ToolCall("look", {}, "c1"), ToolCall("go", {"to": "door"}, "c2"))
    in_text = ToolCall("look", {})
    messages = transcript.extend(Action("", (*calls, in_text)), "a key; you went")
    assert messages == (
        *START,
        Message("assistant", "", calls),
        Message("tool", "a key; you went", tool_call_id="c1"),
        Message("tool", "(answered in the reply to the first call)", tool_call_id="c2"),
    )


@given(
    st.lists(
        st.tuples(
            st.text(),
            st.lists(st.sampled_from(["c1", "c2", None]), max_size=2, unique=True),
            st.text(),
        ),
        max_size=6,
    )
)
def test_messages_are_only_ever_appended(
    turns: list[tuple[str, list[str | None], str]],
) -> None:
    transcript = Transcript(START)
    before = transcript.messages
    for content, call_ids, reply in turns:
        calls = tuple(ToolCall("look", {"n": 1}, call_id) for call_id in call_ids)
        after = transcript.extend(Action(content, calls), reply)
        assert after[: len(before)] == before
        assert any(message.content == reply for message in after[len(before) + 1 :])
        asked = [call.call_id for call in after[len(before)].tool_calls]
        answered = [message.tool_call_id for message in after[len(before) + 1 :]]
        assert answered == (asked or [None])
        before = after
    written = json.loads(json.dumps(transcript.to_json()))
    assert Transcript.from_json(written).messages == transcript.messages


def test_a_transcript_does_not_share_what_it_was_made_from() -> None:
    start = list(START)
    transcript = Transcript(start)
    start.clear()
    assert transcript.messages == START


@pytest.mark.parametrize("budget", [14, 15, 16, 30])
def test_the_size_of_the_note_itself_counts(budget: int) -> None:
    items = tuple("x" for _ in range(40))
    text = render_sections([Section("", items, Shrink.LOWEST)], budget)
    assert len(text) <= budget
    shown = (budget - len("(12 left out)")) // 2
    assert text == "x\n" * shown + f"({40 - shown} left out)"
