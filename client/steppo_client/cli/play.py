"""`steppo play`: a person plays in the terminal."""

import uuid
from typing import Annotated

import anyio.to_thread
import typer
from rich.markup import escape
from rich.panel import Panel

from steppo_client.cli.common import (
    ConfigOption,
    ServerOption,
    SetOption,
    open_client,
    read_settings,
    run_async,
    screen,
)
from steppo_client.env_client import EnvClient, SessionStart
from steppo_env.mdp import Observation

__all__ = ["play"]

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
    index: Annotated[int, typer.Option(help="Place of the task in its split.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the episode.")] = 0,
) -> None:
    """Play one episode yourself."""
    options = read_settings(settings)

    async def work() -> None:
        async with open_client(server, config) as client:
            session_id = f"play-{uuid.uuid4().hex}"
            start = SessionStart(env, session_id, seed, split=split, index=index, options=options)
            state = await client.create(start)
            screen.print(f"task {escape(state.task_id)}. {escape(HELP)}", style="dim")
            await _episode(client, session_id, state.observation)

    run_async(work)


async def _episode(client: EnvClient, session_id: str, observation: Observation) -> None:
    step_index, return_ = 0, 0.0
    while True:
        _show(observation)
        text = await _read_response(client, session_id, observation)
        if text is None:
            screen.print(f"left after {step_index} steps, return {return_:g}")
            return
        taken = await client.step(session_id, step_index, text)
        outcome = taken.outcome
        observation, step_index = outcome.observation, step_index + 1
        return_ += outcome.reward
        if outcome.reward:
            screen.print(f"reward {outcome.reward:g} {dict(outcome.reward_terms)}", style="green")
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


async def _read_response(
    client: EnvClient, session_id: str, observation: Observation
) -> str | None:
    """Return the response to send, or None to leave."""
    while True:
        try:
            line = await anyio.to_thread.run_sync(input, "> ", abandon_on_cancel=True)
        except EOFError:
            return None
        text = line.strip()
        if text == ":quit":
            return None
        if text == ":expert":
            advice = await client.expert(session_id)
            screen.print(escape(f"{advice.action} (distance {advice.distance})"), style="cyan")
        elif text:
            return _completed(text, observation)


def _completed(text: str, observation: Observation) -> str:
    """Return a bare command, or the number of one, as the response that gives it."""
    commands = observation.admissible_actions or ()
    if text.isdigit() and 1 <= int(text) <= len(commands):
        return f"<act> {commands[int(text) - 1]} </act>"
    return text if "<" in text or not commands else f"<act> {text} </act>"
