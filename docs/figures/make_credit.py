"""Draws credit.svg: what each estimator gives to the steps of one trajectory.

Run as `python docs/figures/make_credit.py [OUTPUT]`. The same input gives the same bytes.
The numbers also stand as a table in docs/credit.md.
"""

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from steppo_env import credit

FIGURE = Path(__file__).with_name("credit.svg")

PLACES = {
    "A": ["far", "near", "at key", "near", "at key"],
    "B": ["far", "near", "at key"],
    "C": ["far", "near", "at key", "lost"],
    "D": ["far", "near", "far", "near", "far"],
}
"""Four trajectories of one task, by the place of the agent before each step. The figure shows A."""

SUCCESSFUL = {"A", "B"}
WASTED = 2
"""The step in which A, already at the key, walks away from it."""

VALUES = {
    "A": [0.30, 0.45, 0.60, 0.40, 0.55],
    "B": [0.30, 0.45, 0.60],
    "C": [0.30, 0.45, 0.60, 0.05],
    "D": [0.30, 0.45, 0.25, 0.35, 0.15],
}
"""What a critic says of each state; the same before and inside the response."""

WON_FORKS = {"A": [1, 2, 3, 1, 2], "B": [1, 2, 3], "C": [1, 2, 3, 0], "D": [1, 2, 1, 1, 0]}
"""How many of four continuations sampled from each state succeeded."""

TOKENS = 100
"""The length of every response."""

Estimator = Callable[[credit.StepBatch], credit.Credit]
PANELS: dict[str, tuple[str, Estimator]] = {
    "step_gae": ("γ = 1, λ = 0.95 per step", partial(credit.step_gae, gamma=1.0, lam=0.95)),
    "step_gae, λ = 0": ("γ = 1, λ = 0", partial(credit.step_gae, gamma=1.0, lam=0.0)),
    "monte_carlo": ("γ = 1, 4 forks a state", partial(credit.monte_carlo, gamma=1.0)),
    "token_gae": ("γ = 1, λ = 0.95 per token", partial(credit.token_gae, gamma=1.0, lam=0.95)),
    "token_gae_step_discount": (
        "γ = 1, λ = 0.95 per step",
        partial(credit.token_gae_step_discount, gamma=1.0, lam=0.95),
    ),
    "reinforce_pp": ("γ = 0.95 per step", partial(credit.reinforce_pp, gamma=0.95)),
    "broadcast": ("the return", credit.broadcast),
    "grpo": ("over the group's spread", credit.grpo),
    "gigpo": ("γ = 0.95, state = place", partial(credit.gigpo, gamma=0.95)),
    "dr_grpo": ("less the group's mean", credit.dr_grpo),
    "rloo": ("less the others' mean", credit.rloo),
    "reinforce_pp_baseline": ("less the group's mean", credit.reinforce_pp_baseline),
}

INK, FAINT, BAND, PAPER = "#1f2328", "#59636e", "#eceff2", "#ffffff"
UP, DOWN = "#0072b2", "#d55e00"  # blue and vermilion, told apart with any colour vision
DARK = {INK: "#e6edf3", FAINT: "#9aa4af", BAND: "#262d36", PAPER: "#0d1117", UP: "#56b4e9"}
"""What each colour becomes where the reader's screen is dark."""


def example() -> credit.StepBatch:
    """Return the four trajectories as a batch; a success is rewarded with 1 at its end."""
    rows = [(name, step) for name, places in PLACES.items() for step in range(len(places))]
    return credit.StepBatch.from_arrays(
        trajectory=[name for name, _ in rows],
        step=[step for _, step in rows],
        reward=[float(name in SUCCESSFUL and step + 1 == len(PLACES[name])) for name, step in rows],
        value=[VALUES[name][step] for name, step in rows],
        group=dict.fromkeys(PLACES, "fetch the key"),
        anchor=[PLACES[name][step] for name, step in rows],
        response_length=[TOKENS] * len(rows),
        token_value=[[VALUES[name][step]] * TOKENS for name, step in rows],
        forks={
            (name, step): [[float(fork < WON_FORKS[name][step])] for fork in range(4)]
            for name, step in rows
        },
    )


def advantages() -> dict[str, NDArray[np.float64]]:
    """Return the raw advantage of each step of A by panel; of a token method, its tokens' mean."""
    batch = example()
    steps = len(PLACES["A"])
    found: dict[str, NDArray[np.float64]] = {}
    for name, (_, estimator) in PANELS.items():
        given = estimator(batch)
        tokens = TOKENS if given.level == "token" else 1
        found[name] = given.advantages[: steps * tokens].reshape(steps, tokens).mean(axis=1)
    return found


def draw() -> str:
    """Return the figure as SVG."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.03, hspace=0.02)
    with matplotlib.rc_context(
        {
            "svg.hashsalt": "credit",
            "svg.fonttype": "path",
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "font.size": 8.0,
            "text.color": INK,
        }
    ):
        figure = Figure(figsize=(8.0, 7.4), facecolor=PAPER, layout=layout)
        axes = figure.subplots(4, 3, sharex=True)
        for panel, (name, heights) in zip(axes.flat, advantages().items(), strict=True):
            _draw_panel(panel, name, PANELS[name][0], heights)
        axes[0, 0].text(
            WASTED,
            0.88,
            "wasted",
            transform=axes[0, 0].get_xaxis_transform(),
            ha="center",
            color=FAINT,
        )
        for panel in axes[-1]:
            panel.set_xticks(range(len(PLACES["A"])), PLACES["A"], color=FAINT)
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    return _with_dark_colours(text.getvalue())


def _draw_panel(panel: Axes, name: str, setting: str, heights: NDArray[np.float64]) -> None:
    panel.set_facecolor(PAPER)
    panel.axvspan(WASTED - 0.5, WASTED + 0.5, color=BAND, linewidth=0, zorder=0)
    bars = panel.bar(
        range(len(heights)), heights, width=0.62, color=[DOWN if h < 0 else UP for h in heights]
    )
    labels = [f"{height:+.2f}".replace("-", "−") for height in heights]
    panel.bar_label(bars, labels, padding=2, color=INK, fontsize=7)
    panel.axhline(0, color=FAINT, linewidth=0.8)
    panel.set_title(name.partition(",")[0], loc="left", fontsize=9, fontweight="bold", pad=16)
    panel.text(0, 1.04, setting, transform=panel.transAxes, color=FAINT, fontsize=7.5)
    panel.set_yticks([])
    low, high = min(0.0, float(heights.min())), float(heights.max())
    room = high - low
    panel.set_ylim(low - room * (0.2 if low < 0 else 0.04), high + room * 0.28)
    panel.tick_params(axis="x", length=0)
    panel.spines[:].set_visible(False)


def _with_dark_colours(svg: str) -> str:
    """Let the reader's screen choose; what does not know the question shows the light colours."""
    rules = [
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in DARK.items()
        for kind in ("fill", "stroke")
    ]
    style = f"<style>@media (prefers-color-scheme: dark){{{''.join(rules)}}}</style>"
    head, mark, rest = svg.partition(" <defs>\n")
    if not mark:
        raise ValueError("the SVG has no <defs>; matplotlib writes another form than expected")
    lines = (line.rstrip() for line in f"{head} {style}\n{mark}{rest}".splitlines())
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Write the figure."""
    output = Path(arguments[0]) if arguments else FIGURE
    output.write_text(draw(), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
