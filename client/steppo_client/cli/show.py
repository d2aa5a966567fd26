"""One trajectory in the terminal, step by step."""

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from steppo_client.cli.common import paper
from steppo_env.mdp import Step, Trajectory

__all__ = ["show_trajectory"]

MAX_SHOWN_CHARS = 1_500


def show_trajectory(trajectory: Trajectory, console: Console = paper) -> None:
    """Print a trajectory: what the policy saw, what it wrote, what it got."""
    verdict = {True: "solved", False: "not solved", None: "no verdict"}[trajectory.success]
    console.print(
        f"[bold]{escape(trajectory.env_id)}[/] {escape(trajectory.task_id)}  "
        f"policy {escape(trajectory.policy)}  seed {trajectory.seed}"
    )
    console.print(
        f"{trajectory.trajectory_id}: {verdict}, return {trajectory.return_:g}, "
        f"{len(trajectory.steps)} steps, ended by {trajectory.stop_reason.value}"
        + (f" ({escape(trajectory.error)})" if trajectory.error else "")
    )
    for step in trajectory.steps:
        _show_step(step, console)
    if trajectory.final_messages is not None:
        text = _shortened(trajectory.final_messages[-1].content)
        console.print(Panel(escape(text), title="the state in which it was cut short"))


def _show_step(step: Step, console: Console) -> None:
    console.rule(f"step {step.step_index}", align="left")
    console.print(Panel(escape(_shortened(step.observation_text)), title="observation"))
    response = _shortened(step.response_text) or "(no text)"
    calls = "\n".join(f"{call.name} {dict(call.arguments)}" for call in step.tool_calls)
    shown = f"{response}\n\ncalls:\n{calls}" if calls else response
    console.print(Panel(escape(shown), title="response", border_style="cyan"))
    ending = " terminated" if step.terminated else " truncated" if step.truncated else ""
    terms = ", ".join(f"{name} {value:g}" for name, value in step.reward_terms.items())
    console.print(f"reward {step.reward:g} ({terms or 'no terms'}){ending}", style="green")
    rejected = step.info.get("rejected")
    if isinstance(rejected, list) and rejected:
        console.print(f"rejected: {escape('; '.join(map(str, rejected)))}", style="yellow")


def _shortened(text: str) -> str:
    if len(text) <= MAX_SHOWN_CHARS:
        return text
    return f"{text[:MAX_SHOWN_CHARS]}\n... ({len(text) - MAX_SHOWN_CHARS} more characters)"
