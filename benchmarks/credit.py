"""How much faster are the credit estimators than plain loops, and does their cost stay linear?

Run with `python benchmarks/credit.py`. The named baseline of each ratio is the loop in `credit_loops.py`:
one trajectory at a time, over Python floats, as one would write the formula down.
Both sides start from numpy arrays (one a trajectory here, a `StepBatch` there; what making the batch
costs is printed), give arrays of advantages and returns, and must agree to 1e-9 before anything is timed.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from benchmarks import credit_loops as loops
from benchmarks import report
from benchmarks.credit_loops import GROUP, Episode, Result, make_episodes
from steppo_env import credit

SEED = 20
TRAJECTORIES = 512
"""Also for a quick run: on fewer, the fixed cost of a call hides what is measured."""
SIZES, QUICK_MOST_STEPS = (1_000, 10_000, 100_000, 1_000_000), 100_000
TARGETS = {"step_gae": 20.0, "token_gae": 50.0}
TOLERANCE = 1e-9


def lay_out(episodes: Sequence[Episode]) -> credit.StepBatch:
    """Return the same data as the batch that the estimators take."""
    return credit.StepBatch.from_arrays(
        trajectory=[i for i, episode in enumerate(episodes) for _ in episode.rewards],
        step=[t for episode in episodes for t in range(len(episode.rewards))],
        reward=np.concatenate([episode.rewards for episode in episodes]),
        value=np.concatenate([episode.values for episode in episodes]),
        terminated={i: episode.terminated for i, episode in enumerate(episodes)},
        bootstrap_value={i: episode.bootstrap_value for i, episode in enumerate(episodes)},
        group={i: episode.group for i, episode in enumerate(episodes)},
        anchor=[anchor for episode in episodes for anchor in episode.anchors],
        response_length=[len(v) for episode in episodes for v in episode.token_values],
        token_value=[v for episode in episodes for v in episode.token_values],
        forks={
            (i, t): rewards
            for i, episode in enumerate(episodes)
            for t, rewards in enumerate(episode.forks)
        },
    )


Loop = Callable[[Sequence[Episode]], Result]
Vectorized = Callable[[credit.StepBatch], credit.Credit]
CASES: dict[str, tuple[Vectorized, Loop]] = {
    "step_gae": (
        partial(credit.step_gae, gamma=0.99, lam=0.95),
        partial(loops.step_gae, gamma=0.99, lam=0.95),
    ),
    "token_gae": (
        partial(credit.token_gae, gamma=0.999, lam=0.995),
        partial(loops.token_gae, gamma=0.999, lam=0.995, by_step=False),
    ),
    "token_gae_step_discount": (
        partial(credit.token_gae_step_discount, gamma=0.99, lam=0.95),
        partial(loops.token_gae, gamma=0.99, lam=0.95, by_step=True),
    ),
    "broadcast": (credit.broadcast, loops.broadcast),
    "grpo": (credit.grpo, partial(loops.over_group, advantage=loops.standardized)),
    "dr_grpo": (credit.dr_grpo, partial(loops.over_group, advantage=loops.centred)),
    "rloo": (credit.rloo, partial(loops.over_group, advantage=loops.leave_one_out)),
    "reinforce_pp_baseline": (
        credit.reinforce_pp_baseline,
        partial(loops.over_group, advantage=loops.centred),
    ),
    "reinforce_pp": (
        partial(credit.reinforce_pp, gamma=0.99),
        partial(loops.reinforce_pp, gamma=0.99),
    ),
    "gigpo": (partial(credit.gigpo, gamma=0.95), partial(loops.gigpo, gamma=0.95)),
    "monte_carlo": (
        partial(credit.monte_carlo, gamma=0.99),
        partial(loops.monte_carlo, gamma=0.99),
    ),
}
SCALED = tuple(name for name in CASES if not name.startswith(("token", "monte")))
"""The estimators whose cost is shown against the number of steps: those that need steps only."""


def difference(name: str, batch: credit.StepBatch, episodes: Sequence[Episode]) -> float:
    """Return the largest difference between an estimator and its loop."""
    vectorized, loop = CASES[name]
    found = vectorized(batch)
    advantages, returns = loop(episodes)
    gaps = (np.abs(found.advantages - advantages), np.abs(found.returns - returns))
    return max(float(gap.max()) for gap in gaps)


def compare(num_trajectories: int, repeats: int) -> dict[str, float]:
    """Print how each estimator compares with its loop, and return the ratios."""
    episodes = make_episodes(num_trajectories, np.random.default_rng(SEED))
    batch = lay_out(episodes)
    num_tokens = sum(len(v) for episode in episodes for v in episode.token_values)
    report.say(f"{num_trajectories} trajectories, {batch.num_steps} steps, {num_tokens} tokens")
    ratios: dict[str, float] = {}
    rows: list[list[str]] = []
    for name, (vectorized, loop) in CASES.items():
        gap = difference(name, batch, episodes)
        if not gap <= TOLERANCE:
            raise SystemExit(f"{name} differs from its loop by {gap:g}, more than {TOLERANCE:g}")
        both = (partial(loop, episodes), partial(vectorized, batch))
        loop_s, vectorized_s = report.medians_s(both, repeats)
        first_s = report.median_first_s(partial(lay_out, episodes), vectorized, 3)
        ratios[name] = loop_s / vectorized_s
        numbers = (loop_s * 1e3, first_s * 1e3, vectorized_s * 1e3, ratios[name])
        rows.append([name, *_cells(*numbers), f"{TARGETS[name]:g}" if name in TARGETS else ""])
    header = ["estimator", "loop ms", "first ms", "again ms", "ratio", "target"]
    report.say(report.table(header, rows))
    report.say(
        "first: on a new batch, which has yet to find how its rows divide; the ratio is of again"
    )
    (made_s,) = report.medians_s([partial(lay_out, episodes)], 1)
    report.say(f"making the batch, once for all of them: {made_s * 1e3:.4g} ms\n")
    return ratios


def scaled_batch(num_steps: int) -> credit.StepBatch:
    """Return a batch of ten-step trajectories in groups of eight."""
    rng = np.random.default_rng(SEED)
    trajectory = np.arange(num_steps) // 10
    ids = range(num_steps // 10)
    return credit.StepBatch.from_arrays(
        trajectory=trajectory,
        step=np.arange(num_steps) % 10,
        reward=rng.normal(size=num_steps),
        value=rng.normal(size=num_steps),
        terminated={i: i % 4 > 0 for i in ids},
        bootstrap_value=dict.fromkeys(ids, 0.5),
        group={i: i // GROUP for i in ids},
        anchor=[f"room {place}" for place in rng.integers(0, 12, size=num_steps)],
    )


def grow(sizes: Sequence[int], repeats: int) -> None:
    """Print the microseconds a step takes as the number of steps grows."""
    report.say("microseconds per step; a flat row is a cost linear in steps")
    columns: list[list[str]] = []
    for size in sizes:
        (made_s,) = report.medians_s([partial(scaled_batch, size)], 1)
        batch = scaled_batch(size)
        times = report.medians_s([partial(CASES[name][0], batch) for name in SCALED], repeats)
        columns.append(_cells(*(seconds / size * 1e6 for seconds in (*times, made_s))))
    names = [*SCALED, "(making the batch)"]
    rows = [[name, *cells] for name, cells in zip(names, zip(*columns, strict=True), strict=True)]
    report.say(report.table(["estimator", *(f"{size:,} steps" for size in sizes)], rows))


def _cells(*numbers: float) -> list[str]:
    return [f"{number:.3g}" if number < 100 else f"{number:.0f}" for number in numbers]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; a missed target is reported, not an error."""
    parser = report.parser("Compare the credit estimators with plain Python loops.")
    parser.add_argument(
        "--trajectories", type=int, metavar="N", default=TRAJECTORIES, help="how many to compare on"
    )
    parser.add_argument("--most-steps", type=int, metavar="N", help="stop growing at N steps")
    chosen = parser.parse_args(arguments)
    count = chosen.trajectories
    most = chosen.most_steps
    if most is None:
        most = QUICK_MOST_STEPS if chosen.quick else SIZES[-1]
    if count < 1 or most < SIZES[0]:
        parser.error(f"it takes at least 1 trajectory and {SIZES[0]} steps")
    sizes = [size for size in SIZES if size <= most]
    ratios = compare(count, repeats=3 if chosen.quick else 7)
    grow(sizes, repeats=3)
    for name in report.missed(ratios, TARGETS):
        report.say(f"{name}: {ratios[name]:.3g} times, below its target of {TARGETS[name]:g}")
    if chosen.json:
        report.say(report.json_line(ratios, TARGETS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
