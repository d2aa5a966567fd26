"""Puts the verbs together. Data goes to stdout; everything said to a person goes to stderr.

Exit codes: 0 done; 1 done, but infrastructure failed some episodes; 2 bad input or nothing done;
130 interrupted.
"""

import logging
import sys
from importlib.metadata import EntryPoint, entry_points

import stamina.instrumentation
import typer

from steppo_client.cli import data, demo, environments, evaluate, play, rollout, store
from steppo_env.errors import MissingDependency, SteppoError

__all__ = ["build_app", "main"]

COMMAND_GROUP = "steppo_client.commands"
"""Entry points of verbs that other packages bring, such as `serve`."""

DATA_GROUP = "steppo_client.data_commands"
"""Entry points of commands that other packages bring to `steppo data`, such as `convert`."""

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
    verb, command, *_ = *(word for word in arguments if not word.startswith("-")), None, None
    app.command("envs")(environments.envs)
    app.command("play")(play.play)
    app.command("rollout")(rollout.rollout)
    app.command("eval")(evaluate.evaluate)
    app.add_typer(store.app, name="store")
    app.add_typer(_data_app(verb, command), name="data")
    app.command("demo")(demo.demo)
    _add_all(app, COMMAND_GROUP, verb, "steppo", "server")
    return app


def _data_app(verb: str | None, command: str | None) -> typer.Typer:
    app = typer.Typer(help="Make data packs and count what is in them.", no_args_is_help=True)
    app.command("stats")(data.stats)
    if verb == "data":
        _add_all(app, DATA_GROUP, command, "steppo data", "textworld")
    return app


def _add_all(app: typer.Typer, group: str, wanted: str | None, path: str, extra: str) -> None:
    """Add the commands that other packages bring.

    Args:
        wanted: The only one that is imported; None imports all, for help.
        path: The words that stand before the command's name.
        extra: What to install where one cannot be imported.
    """
    for point in sorted(entry_points(group=group)):
        if wanted in (None, point.name):
            _add(app, point, path, extra)


def _add(app: typer.Typer, point: EntryPoint, path: str, extra: str) -> None:
    try:
        app.command(point.name)(point.load())
    except (ImportError, AttributeError) as error:  # no such module, or it has no such command
        reason = str(error)

        def missing() -> None:
            raise MissingDependency(
                f"{path} {point.name} needs more than is installed here ({reason}); "
                f'install it with: pip install "steppo-env[{extra}]"'
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
        app(prog_name="steppo")  # also when run as `python -m steppo_client`
    except SteppoError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        raise SystemExit(EXIT_BAD_INPUT) from None
