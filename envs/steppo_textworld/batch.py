"""Making many games side by side, each worker with a maker process of its own."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from queue import SimpleQueue

from steppo_env.errors import EnvError
from steppo_textworld.games import FILES, game_folder, make_game
from steppo_textworld.levels import GameSpec
from steppo_textworld.maker import Maker

__all__ = ["Fate", "MadeGame", "make_games"]


class Fate(StrEnum):
    """What became of a game that was asked for."""

    MADE = "made"
    """It was made."""
    ALREADY_THERE = "already_there"
    """The cache had it, undamaged."""
    FAILED = "failed"
    """It could not be made."""


@dataclass(frozen=True, slots=True)
class MadeGame:
    """What became of a game.

    Attributes:
        num_bytes: What it takes on disk; 0 when it failed.
        reason: Why it failed, or nothing.
    """

    spec: GameSpec
    fate: Fate
    num_bytes: int = 0
    reason: str = ""


def make_games(
    specs: Sequence[GameSpec], num_workers: int, new_maker: Callable[[], Maker] = Maker
) -> Generator[MadeGame, None, None]:
    """Make the games that the cache lacks, and yield each as it is finished, in any order.

    Closing the iterator, or an exception such as KeyboardInterrupt while it waits, ends the workers
    and leaves whole games only; the same call made again goes on from there.

    Args:
        specs: The games.
        num_workers: Processes that make games, at least 1.
        new_maker: What makes one worker's maker.
    """
    makers = [new_maker() for _ in range(min(num_workers, len(specs)))]
    idle: SimpleQueue[Maker] = SimpleQueue()
    for maker in makers:
        idle.put(maker)

    def make(spec: GameSpec) -> MadeGame:
        maker = idle.get_nowait()  # there are as many makers as threads
        try:
            fate = Fate.MADE if make_game(spec, maker) else Fate.ALREADY_THERE
        except EnvError as error:
            return MadeGame(spec, Fate.FAILED, reason=str(error))
        finally:
            idle.put(maker)
        folder = game_folder(spec)
        return MadeGame(spec, fate, sum((folder / name).stat().st_size for name in FILES))

    pool = ThreadPoolExecutor(max(1, len(makers)), thread_name_prefix="make-games")
    try:
        waiting: list[Future[MadeGame]] = [pool.submit(make, spec) for spec in specs]
        for future in as_completed(waiting):
            yield future.result()
    finally:
        # What waits is dropped before a maker is ended: its thread would take the next game.
        pool.shutdown(wait=False, cancel_futures=True)
        for maker in makers:
            maker.close()
        pool.shutdown()
