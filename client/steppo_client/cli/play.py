"""`steppo play`: a person plays in the terminal."""

import uuid
from typing import Annotated

import typer
from anyio.from_thread import BlockingPortal, start_blocking_portal
from rich.markup import escape
from rich.panel import Panel

from steppo_client.cli.common import (
    ConfigOption,
    ServerOption,
    SetOption,
    open_client,
    read_settings,
    screen,
)
from steppo_client.env_client import EnvClient, SessionStart, SessionState
from steppo_env.mdp import Observation

__all__ = ["play"]

LEASE_S = 24 * 3600.0
"""A person may think for long."""

HELP = (
    "Type a whole response, such as <answer>Paris</answer>. Where commands are listed, the bare "
    "command or its number will do. :expert shows what the expert would do, :quit leaves."
)


def play(
    env: Annotated[str, typer.Argument(help="A registered id or a named variant.")],
    server: ServerOption = None,
    config: ConfigOption = None,
    settings: SetOption = None,
    split: Annotated[str, typer.Option(help="Split of the task.")] = "dev",
    index: Annotated[int, typer.Option(min=0, help="Place of the task in its split.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the episode.")] = 0,
) -> None:
    """Play one episode yourself."""
    start = SessionStart(
        env,
        f"play-{uuid.uuid4().hex}",
        seed,
        split=split,
        index=index,
        options=read_settings(settings),
        lease_s=LEASE_S,
    )
    # The person is asked in the main thread, where Ctrl-C interrupts; the client runs in another.
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_client(server, config)) as client,
    ):
        state = portal.call(client.create, start)
        screen.print(f"task {escape(state.task_id)}. {escape(HELP)}", style="dim")
        _episode(portal, client, state)


def _episode(portal: BlockingPortal, client: EnvClient, state: SessionState) -> None:
    observation, step_index, return_ = state.observation, 0, 0.0
    while True:
        _show(observation)
        text = _read_response(portal, client, state.session_id, observation)
        if text is None:
            screen.print(f"left after {step_index} steps, return {return_:g}")
            return
        outcome = portal.call(client.step, state.session_id, step_index, text).outcome
        observation, step_index = outcome.observation, step_index + 1
        return_ += outcome.reward
        if outcome.reward:
            terms = escape(str(dict(outcome.reward_terms)))
            screen.print(f"reward {outcome.reward:g} {terms}", style="green")
        if outcome.terminated or outcome.truncated:
            screen.print(Panel(escape(observation.text), title="the end"))
            ending = "terminated" if outcome.terminated else "truncated"
            success = outcome.info.get("success")
            screen.print(
                f"{ending} after {step_index} steps: success {success}, return {return_:g}"
            )
            return


def _show(observation: Observation) -> None:
    for message in observation.messages:
        screen.print(Panel(escape(message.content), title=message.role))
    for number, command in enumerate(observation.admissible_actions or (), start=1):
        screen.print(f"  {number:>2}  {escape(command)}")


def _read_response(
    portal: BlockingPortal, client: EnvClient, session_id: str, observation: Observation
) -> str | None:
    """Return the response to send, or None to leave."""
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return None
        if text == ":quit":
            return None
        if text == ":expert":
            advice = portal.call(client.expert, session_id)
            screen.print(escape(f"{advice.action} (distance {advice.distance})"), style="cyan")
        elif text:
            return _completed(text, observation)


def _completed(text: str, observation: Observation) -> str:
    """Return a bare command, or the number of one, as the response that gives it."""
    commands = observation.admissible_actions or ()
    numbered = {str(number): command for number, command in enumerate(commands, start=1)}
    if text in numbered:
        return f"<act> {numbered[text]} </act>"
    return text if "<" in text or not commands else f"<act> {text} </act>"
