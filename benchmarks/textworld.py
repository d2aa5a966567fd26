"""What do TextWorld's infos cost, what does our environment, and how cheap is a fork of it?

Run with `python benchmarks/textworld.py`. The games come from the cache of games; those it lacks are
made first. Three loops play the same commands: TextWorld's own environment with the infos that an
agent sees, the same with every info there is, and ours. Then an episode is forked after some steps in
three ways: by our snapshot, by the `copy()` of TextWorld's environment with the agent's infos, and by
playing the actions again. Before anything is timed, all of them must agree on what can be done next.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks import report
from steppo_env.env import AnyEnv
from steppo_env.registry import make
from steppo_textworld import Family
from steppo_textworld.engine import jericho, textworld
from steppo_textworld.games import game_folder

SEED = 7
GAMES: Mapping[Family, int] = {
    Family.COIN_COLLECTOR: 105,
    Family.TREASURE_HUNTER: 8,
    Family.SIMPLE: 2,
    Family.COOKING: 7,
    Family.CUSTOM: 8,
}
"""The families and a level of each; the first game of dev is played."""
DEPTHS = (5, 20)
TARGET = 20.0
"""How many times cheaper a snapshot and its restoring are than a copy, at least, in every case."""

_SAFE = ("go ", "look", "inventory", "examine ", "open ")
"""Commands that neither win nor lose a game of these families; to open something may win `custom`."""
AGENT_INFOS = ("feedback", "admissible_commands", "objective", "score", "max_score", "won", "lost")


@dataclass(frozen=True, slots=True)
class Walk:
    """A way through the first game of dev.

    Attributes:
        commands: As many as the deepest fork has steps.
    """

    family: Family
    level: int
    commands: tuple[str, ...]

    @property
    def name(self) -> str:
        """Family and level, as in task ids."""
        return f"{self.family}-{self.level}"

    def new_env(self) -> AnyEnv:
        """Return our environment, without an episode."""
        return make(
            "steppo/TextWorld-v0",
            family=self.family.value,
            level=self.level,
            step_limit=1000,
        )

    def start(self, env: AnyEnv, depth: int = 0) -> None:
        """Begin the game and play the first commands."""
        env.start(env.tasks.at("dev", 0), SEED)
        for command in self.commands[:depth]:
            env.advance(f"<act>{command}</act>")

    def new_plain(self, infos: Sequence[str]) -> Any:
        """Return TextWorld's environment with these infos."""
        spec = self.new_env().tasks.at("dev", 0).spec
        wanted = textworld.EnvInfos(**dict.fromkeys(infos, True))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", jericho.UnsupportedGameWarning)
            return textworld.start(str(game_folder(spec) / "game.z8"), wanted)

    def start_plain(self, plain: Any, depth: int = 0) -> Any:
        """Begin the game and play the first commands; return TextWorld's last state."""
        state = plain.reset()
        for command in self.commands[:depth]:
            state, _, _ = plain.step(command)
        return state


def find_walk(family: Family, level: int, num_steps: int) -> Walk:
    """Return a random walk that does not end the game; also see that the game is made."""
    safe = _SAFE[:-1] if family is Family.CUSTOM else _SAFE
    walk = Walk(family, level, ())
    env = walk.new_env()
    walk.start(env)
    rng = np.random.default_rng(SEED)
    commands: list[str] = []
    while len(commands) < num_steps:
        allowed = [
            name for name in env.observation.admissible_actions or () if name.startswith(safe)
        ]
        commands.append(allowed[int(rng.integers(len(allowed)))])
        env.advance(f"<act>{commands[-1]}</act>")
    if env.has_ended:
        raise SystemExit(f"{walk.name}: the walk {commands} ends the game")
    env.close()
    return Walk(family, level, tuple(commands))


def all_infos() -> tuple[str, ...]:
    """Return the names of all infos that TextWorld has, without those of single games."""
    return tuple(name for name in textworld.EnvInfos.__slots__ if name != "extras")


def step_rates(walk: Walk, repeats: int) -> dict[str, float]:
    """Return steps per second of the three loops; what beginning the game takes is not counted."""
    seen, everything = walk.new_plain(AGENT_INFOS), walk.new_plain(all_infos())
    env = walk.new_env()
    num_steps = len(walk.commands)
    walk.start(env, num_steps)
    agree(env, walk.start_plain(seen, num_steps))
    agree(env, walk.start_plain(everything, num_steps))
    functions = [
        partial(start, depth)
        for start in (
            partial(walk.start_plain, seen),
            partial(walk.start_plain, everything),
            partial(walk.start, env),
        )
        for depth in (0, num_steps)
    ]
    times = report.medians_s(functions, repeats)
    rates = [num_steps / max(times[i + 1] - times[i], 1e-9) for i in (0, 2, 4)]
    return dict(zip(("agent_infos", "all_infos", "ours"), rates, strict=True))


def fork_times_s(walk: Walk, depth: int, repeats: int) -> dict[str, float]:
    """Return the seconds of each way to fork an episode after some steps."""
    env, fork = walk.new_env(), walk.new_env()
    walk.start(env, depth)
    snapshot = env.snapshot()
    if snapshot is None:
        raise SystemExit(f"{walk.name} has no snapshot")
    plain = walk.new_plain(AGENT_INFOS)
    agree(env, walk.start_plain(plain, depth))
    if fork.restore(snapshot) != env.observation:
        raise SystemExit(f"{walk.name}: a fork after {depth} steps differs from its origin")
    following = walk.commands[depth] if depth < len(walk.commands) else "look"
    fork.advance(f"<act>{following}</act>")
    copied = plain.copy()
    agree(fork, copied.step(following)[0])
    replayed = walk.new_env()
    functions = (
        env.snapshot,
        partial(fork.restore, snapshot),
        partial(restore_anew, walk, snapshot),
        plain.copy,
        partial(walk.start, replayed, depth),
    )
    times = report.medians_s(functions, repeats)
    return dict(zip(("snapshot", "restore", "restore_anew", "copy", "replay"), times, strict=True))


def restore_anew(walk: Walk, snapshot: bytes) -> None:
    """Restore a snapshot into an environment that has not played yet."""
    env = walk.new_env()
    env.restore(snapshot)
    env.close()


def agree(env: AnyEnv, state: Any) -> None:
    """Stop unless TextWorld's environment and ours know the same admissible commands."""
    if tuple(state["admissible_commands"]) != env.observation.admissible_actions:
        raise SystemExit(
            f"TextWorld has the commands {state['admissible_commands']}, "
            f"ours {env.observation.admissible_actions}"
        )


def compare_steps(walks: Sequence[Walk], repeats: int) -> dict[str, float]:
    """Print the steps per second of the loops, and return them."""
    figures: dict[str, float] = {}
    rows: list[list[str]] = []
    for walk in walks:
        rates = step_rates(walk, repeats)
        figures |= {f"{walk.name}.{name}_steps_per_s": rate for name, rate in rates.items()}
        ratio = rates["agent_infos"] / rates["all_infos"]
        rows.append([walk.name, *_cells(*rates.values(), ratio)])
    header = ["steps per second", "agent's infos", "all infos", "ours", "agent's / all"]
    report.say(report.table(header, rows))
    report.say("ours: the world followed, and the whole message of each state written\n")
    return figures


def compare_forks(walks: Sequence[Walk], depths: Sequence[int], repeats: int) -> dict[str, float]:
    """Print what forking costs, and return how many times cheaper than a copy a snapshot is."""
    figures: dict[str, float] = {}
    rows: list[list[str]] = []
    for walk in walks:
        for depth in depths:
            times = fork_times_s(walk, depth, repeats)
            ours = times["snapshot"] + times["restore"]
            ratio, anew = (
                times["copy"] / ours,
                times["copy"] / (times["snapshot"] + times["restore_anew"]),
            )
            figures[f"{walk.name}.after_{depth}.copy_over_snapshot"] = ratio
            figures[f"{walk.name}.after_{depth}.copy_over_snapshot_anew"] = anew
            figures[f"{walk.name}.after_{depth}.replay_over_snapshot"] = times["replay"] / ours
            milliseconds = (seconds * 1e3 for seconds in times.values())
            rows.append([walk.name, str(depth), *_cells(*milliseconds, ratio, anew)])
    header = ["milliseconds", "steps", "snapshot", "restore", "anew", "copy", "replay"]
    report.say(report.table([*header, "copy / ours", "anew"], rows))
    report.say(
        "ours: snapshot and restore, into an environment that has played the game; "
        "anew: into one that has not"
    )
    return figures


def _cells(*numbers: float) -> list[str]:
    return [f"{number:.3g}" if number < 100 else f"{number:.0f}" for number in numbers]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; a missed target is reported, not an error."""
    parser = report.parser("Compare our TextWorld environment with TextWorld's own.")
    parser.add_argument(
        "--family",
        action="append",
        choices=[family.value for family in GAMES],
        help="a family to measure; may be repeated; without it all of them",
    )
    chosen = parser.parse_args(arguments)
    repeats = 2 if chosen.quick else 9
    families = [Family(name) for name in chosen.family or GAMES]
    walks = [find_walk(family, GAMES[family], max(DEPTHS)) for family in families]
    with warnings.catch_warnings():
        # Each copy would warn anew that Jericho knows the scores of commercial games only.
        warnings.simplefilter("ignore", jericho.UnsupportedGameWarning)
        figures = compare_steps(walks, repeats)
        figures |= compare_forks(walks, DEPTHS, repeats)
    targets = {name: TARGET for name in figures if name.endswith(".copy_over_snapshot")}
    for name in report.missed(figures, targets):
        report.say(f"{name}: {figures[name]:.3g} times, below its target of {TARGET:g}")
    if chosen.json:
        report.say(report.json_line(figures, targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
