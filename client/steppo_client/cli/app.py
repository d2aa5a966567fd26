"""Puts the verbs together. Data goes to stdout; everything said to a person goes to stderr.

Exit codes: 0 done; 1 done, but infrastructure failed some episodes; 2 bad input or nothing done;
130 interrupted.
"""

import logging
import sys
from importlib.metadata import EntryPoint, entry_points

import stamina.instrumentation
import typer

from steppo_client.cli import demo, environments, evaluate, play, rollout, store
from steppo_env.errors import MissingDependency, SteppoError

__all__ = ["build_app", "main"]

COMMAND_GROUP = "steppo_client.commands"
"""Entry points of verbs that other packages bring, such as `serve`."""

EXIT_BAD_INPUT = 2
TAKES_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}

logger = logging.getLogger("steppo")


def build_app(arguments: list[str]) -> typer.Typer:
    """Return the command with every verb.

    Verbs of other packages are imported only when they are called, or when help lists them.
    """
    app = typer.Typer(
        name="steppo",
        help="Step-level MDP environments for LLM agents.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command("envs")(environments.envs)
    app.command("play")(play.play)
    app.command("rollout")(rollout.rollout)
    app.command("eval")(evaluate.evaluate)
    app.add_typer(store.app, name="store")
    app.command("demo")(demo.demo)
    verb = next((word for word in arguments if not word.startswith("-")), None)
    for point in sorted(entry_points(group=COMMAND_GROUP)):
        if verb in (None, point.name):
            _add(app, point)
    return app


def _add(app: typer.Typer, point: EntryPoint) -> None:
    try:
        app.command(point.name)(point.load())
    except ImportError as error:
        reason = str(error)

        def missing() -> None:
            raise MissingDependency(
                f"steppo {point.name} needs more than the base install ({reason}); "
                f'install it with: pip install "steppo-env[server]"'
            )

        missing.__doc__ = f"Not installed here: {reason}."
        # Whatever flags it is called with, the answer is what to install.
        app.command(point.name, context_settings=TAKES_ANYTHING)(missing)


def _say_retry(details: stamina.instrumentation.RetryDetails) -> None:
    reason = " ".join(str(details.caused_by).split())
    logger.warning("%s; attempt %d in %.1f s", reason, details.retry_num + 1, details.wait_for)


def main() -> None:
    """Run the command line; always ends in SystemExit."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    stamina.instrumentation.set_on_retry_hooks([_say_retry])
    app = build_app(sys.argv[1:])
    try:
        app()
    except SteppoError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        raise SystemExit(EXIT_BAD_INPUT) from None
