import pytest

from steppo_client import Sample, SessionState, StepTaken, TaskRef
from steppo_client.recording import Recording
from steppo_env.mdp import Message, Observation, Outcome, StopReason, Timing, ToolSpec

TOOLS = (ToolSpec("look", "", {}),)


def state(text: str) -> Observation:
    return Observation((Message("user", text),), f"bare {text}", f"key {text}", TOOLS)


def recording() -> Recording:
    made = Recording(TaskRef("e", "t", "dev", {"hops": 1}), 0, "id", "group", 7, 1.0)
    made.begin(SessionState("id", "e", "t", "dev", {"hops": 2}, 7, state("A"), "k0"))
    return made


def test_a_step_holds_the_state_before_it_and_the_key_after_it() -> None:
    made = recording()
    made.add(Sample("go"), StepTaken(Outcome(state("B"), {"goal": 0.5}), "k1"), Timing())
    made.add(Sample("on"), StepTaken(Outcome(state("C"), {}, terminated=True), "k2"), Timing())
    done = made.finish("p", "run", StopReason.TERMINATED, None)

    first, second = done.steps
    assert (first.messages, first.observation_text, first.state_key, first.trace_key) == (
        (Message("user", "A"),),
        "bare A",
        "key A",
        "k1",
    )
    assert (second.messages, second.step_index, second.reward) == ((Message("user", "B"),), 1, 0.0)
    assert (done.return_, done.success, done.final_messages) == (0.5, False, None)
    assert (done.tools, done.labels) == (TOOLS, {"hops": 2})


@pytest.mark.parametrize("truncated", [True, False])
def test_only_a_truncated_episode_keeps_its_last_state(truncated: bool) -> None:
    made = recording()
    outcome = Outcome(state("B"), truncated=truncated, info={"success": True})
    made.add(Sample("go"), StepTaken(outcome, "k1"), Timing())
    done = made.finish("p", "run", StopReason.CANCELLED, None)

    assert done.final_messages == ((Message("user", "B"),) if truncated else None)
    assert done.success is (True if truncated else None)


def test_an_episode_that_never_began_has_the_labels_of_its_task() -> None:
    made = Recording(TaskRef("e", "t", "dev", {"hops": 1}), 0, "id", "group", 7, 1.0)
    done = made.finish("p", "run", StopReason.SERVER_ERROR, "gone")

    assert (done.steps, done.tools, done.labels, done.error) == ((), (), {"hops": 1}, "gone")
