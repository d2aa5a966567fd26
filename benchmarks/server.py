"""What does a step cost the server, against the barest echo with FastAPI and pydantic?

Run with `python benchmarks/server.py`. A figure is the server's processor time for a step of KeyDoor,
above what the environment itself takes in process, divided by what the echo of `server_echo.py` takes
for a request: both in the same run, on uvloop and httptools, the journal in a file with the sync
"normal". The load comes from a process of its own (`server_load.py`); for `client` its time counts as
well. The time of the journal's thread and of the kernel is in the server's.

Then the memory that live MultihopQA sessions take, and how many steps two TextWorld workers take
against one loop in process. Both are left out of a quick run.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import report
from benchmarks.server_load import ROOT, WARM_UP_STEPS, Load, run
from steppo_env.registry import make

LIMITS = {
    "single_64": 0.8,
    "single_256": 0.8,
    "stream_64": 0.5,
    "stream_256": 0.5,
    "batch_64": 0.1,
    "batch_256": 0.1,
    "client_256": 0.4,
    "multihop_mb": 300.0,
}
"""At most: times the echo; megabytes."""
TARGETS = {"textworld_speed_up": 1.6}
"""At least: times the steps of one loop in process."""
CASES = {
    64: ("echo", "alone", "single", "stream", "batch"),
    256: ("echo", "alone", "single", "stream", "batch", "client"),
}
STEPS, QUICK_STEPS = 12_000, 3_000
"""Steps of one measurement, over all sessions."""
REPEATS, QUICK_REPEATS = 5, 3
MULTIHOP_SESSIONS = 10_000
TEXTWORLD_SESSIONS = 64
TEXTWORLD_STEPS = 40
START_DEADLINE_S = 60.0

ECHO = ("-m", "benchmarks.server_echo")
SERVER = (
    "-c",
    "from steppo_server.serve import main; main()",
    "--port",
    "0",
    "--log-level",
    "error",
)
_prefixes = (f"bench-{number}" for number in count())


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    url: str
    pid: int


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    """Run a server in a process of its own."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            _, _, url = process.stdout.readline().strip().partition(" ")
            if not url:
                raise SystemExit(f"{' '.join(arguments)} did not start")
            yield Served(url, process.pid)
        finally:
            process.terminate()


def journal(folder: Path) -> tuple[str, str]:
    """Return the arguments for a new journal."""
    return "--journal", f"sqlite:///{folder / f'{next(_prefixes)}.db'}"


def measure(steps: int, repeats: int) -> dict[int, dict[str, float]]:
    """Return the median processor seconds of a step, by number of sessions and way.

    All are measured in turn, so that what else the machine does falls on all of them.
    """
    found: dict[tuple[int, str], list[float]] = {}
    with TemporaryDirectory() as folder, serving(*ECHO) as echo:
        for _ in range(repeats):
            # A new one each time: sessions of earlier measurements must not be in the way.
            with serving(*SERVER, *journal(Path(folder))) as server:
                for num_sessions, ways in CASES.items():
                    for way in ways:
                        asked = echo if way == "echo" else server
                        seconds = one(way, asked, num_sessions, steps // num_sessions)
                        found.setdefault((num_sessions, way), []).append(seconds)
    return {
        num_sessions: {way: median(found[num_sessions, way]) for way in ways}
        for num_sessions, ways in CASES.items()
    }


def one(way: str, asked: Served, num_sessions: int, num_steps: int) -> float:
    """Return the processor seconds of a step, those of the client with them where they count."""
    times = run(Load(way, asked.url, asked.pid, num_sessions, num_steps, next(_prefixes)))
    own_s = times["own_s"] if way in ("alone", "client") else 0.0
    return times.get("server_s", 0.0) + own_s


def compare(steps: int, repeats: int) -> dict[str, float]:
    """Print what a step costs on each way, and return the ratios to the echo."""
    ratios: dict[str, float] = {}
    rows: list[list[str]] = []
    for num_sessions, seconds in measure(steps, repeats).items():
        for way, step_s in seconds.items():
            name = f"{way}_{num_sessions}"
            cells = [f"{step_s * 1e6:.0f}", "", ""]
            if way not in ("echo", "alone"):
                ratios[name] = (step_s - seconds["alone"]) / seconds["echo"]
                cells[1:] = f"{ratios[name]:.2f}", f"{LIMITS[name]:g}"
            rows.append([way, str(num_sessions), *cells])
    header = ["", "sessions", "us per step", "times the echo", "at most"]
    report.say(report.table(header, rows))
    report.say("alone: in process, which the ratios leave out; client: its own time is counted\n")
    return ratios


def memory_mb(pid: int) -> float:
    """Return what a process and its children have in memory; what they share counts once."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(own.split()[1]) / 1024 + sum(memory_mb(int(child)) for child in children)


def remember(num_sessions: int) -> dict[str, float]:
    """Print and return what live MultihopQA sessions take above an idle server, in megabytes."""
    env_id = "steppo/MultihopQA-v0"
    with (
        TemporaryDirectory() as folder,
        serving(*SERVER, *journal(Path(folder))) as server,
    ):
        idle_mb = memory_mb(server.pid)
        load = Load(
            *("begin", server.url, server.pid, num_sessions, 0, next(_prefixes)),
            env_id=env_id,
            num_tasks=make(env_id).tasks.splits["dev"],
            options={},
        )
        run(load)
        taken_mb = memory_mb(server.pid) - idle_mb
    report.say(
        f"{num_sessions} live sessions of {env_id}: {taken_mb:.0f} MB above an idle server, index "
        f"and all; at most {LIMITS['multihop_mb']:g}\n"
    )
    return {"multihop_mb": taken_mb}


def speed_up(repeats: int) -> dict[str, float]:
    """Print and return how many times the steps of one loop in process two TextWorld workers take."""
    from benchmarks.textworld import find_walk
    from steppo_textworld import Family

    level = 105
    walk = find_walk(Family.COIN_COLLECTOR, level, TEXTWORLD_STEPS + WARM_UP_STEPS)
    env_id = "steppo/TextWorld-v0"
    options = {"family": walk.family.value, "level": level, "step_limit": 1000}
    actions = [f"<act>{command}</act>" for command in walk.commands]
    alone: list[float] = []
    served: list[float] = []
    with TemporaryDirectory() as folder, serving(*SERVER, *journal(Path(folder))) as server:
        for _ in range(repeats):
            load = Load(
                *("batch", server.url, server.pid, TEXTWORLD_SESSIONS, TEXTWORLD_STEPS),
                *(next(_prefixes), env_id, 1, options, actions),
            )
            served.append(run(load)["wall_s"])
            env = walk.new_env()
            walk.start(env, WARM_UP_STEPS)
            begun = time.perf_counter()
            for action in actions[WARM_UP_STEPS:]:
                env.advance(action)
            alone.append((time.perf_counter() - begun) / TEXTWORLD_STEPS)
            env.close()
    ratio = median(alone) / median(served)
    report.say(
        f"{walk.name}: {1 / median(alone):.0f} steps a second in one loop, {1 / median(served):.0f} "
        f"by two workers, {ratio:.2f} times; at least {TARGETS['textworld_speed_up']:g}\n"
    )
    return {"textworld_speed_up": ratio}


def _of(bounds: Mapping[str, float], figures: Mapping[str, float]) -> dict[str, float]:
    return {name: bound for name, bound in bounds.items() if name in figures}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; a missed target is reported, not an error."""
    parser = report.parser("Compare the server with an echo that does nothing.")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        figures = compare(QUICK_STEPS, QUICK_REPEATS)
    else:
        figures = compare(STEPS, REPEATS) | remember(MULTIHOP_SESSIONS) | speed_up(REPEATS)
    targets, limits = _of(TARGETS, figures), _of(LIMITS, figures)
    for name in report.missed(figures, targets, limits):
        bound = {**targets, **limits}[name]
        report.say(f"{name}: {figures[name]:.3g}, and should be {bound:g}")
    if chosen.json:
        report.say(report.json_line(figures, targets, limits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
