"""Dice that fall the same everywhere, and invented names that are never given twice."""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from steppo_env.metrics import normalize_answer

__all__ = ["Dice", "Namer"]

T = TypeVar("T")


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


ONSETS = _listed("b br c d dr f g gr h j k kr l m n p pr qu r s st t tr v vr w z")
VOWELS = _listed("a e i o u ae ia io")
CODAS = _listed("l m n r s th x ld nd rn sk st")

ADJECTIVES = _listed(
    "Amber Borrowed Broken Burning Copper Crooked Distant Drowned Empty Faithful Fallen Forgotten "
    "Frozen Gilded Hidden Hollow Iron Ivory Last Lonely Lost Midnight Narrow Ninth Paper Patient "
    "Pale Painted Quiet Restless Salted Scarlet Second Silent Silver Sleeping Stolen Sunken "
    "Velvet Wandering Winter Wooden"
)
NOUNS = _listed(
    "Anchor Archive Bell Bridge Candle Carnival Causeway Chapel Clock Compass Courier Crossing "
    "Dancer Echo Feather Ferry Gardener Gate Harbor Horizon Hourglass Lantern Ledger Lighthouse "
    "Mirror Mountain Orchard Organist Passage Pilgrim Quarry Reservoir Riddle Sailor Sparrow "
    "Staircase Station Tailor Telegram Tide Tower Traveller Umbrella Vineyard Violin Watchmaker "
    "Weaver Witness"
)
ANIMALS = _listed(
    "Badgers Cormorants Crickets Falcons Foxes Geese Herons Jackdaws Lynxes Magpies Moths Otters "
    "Owls Pelicans Ravens Salamanders Sparrows Swifts Terriers Wolves"
)


class Dice:
    """Choices from a seed.

    Everything is made of `random.Random.random`, the one method whose numbers Python promises to
    keep between versions.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed).random

    def below(self, count: int) -> int:
        """Return an integer in [0, count)."""
        return int(self._random() * count)

    def between(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self._random() < probability

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """Return the items in a random order."""
        result = list(items)
        for place in range(len(result) - 1, 0, -1):
            other = self.below(place + 1)
            result[place], result[other] = result[other], result[place]
        return result


class Namer:
    """Invents names; no two are equal after SQuAD's normalisation, nor as words for retrieval."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._taken: set[str] = set()
        self.first_names = [self.word() for _ in range(90)]

    def word(self, ending: str = "") -> str:
        """Return an invented capitalised word of at least five letters."""
        while True:
            syllables = self._dice.between(1, 2) if ending else 2
            parts = [self._dice.pick(ONSETS) + self._dice.pick(VOWELS) for _ in range(syllables)]
            word = "".join(parts) + (ending or self._dice.pick(CODAS))
            if len(word) >= 5 and self._is_new(word):
                return word.capitalize()

    def person(self, surname: str) -> str:
        """Return a full name with this surname."""
        return self._new(lambda: f"{self._dice.pick(self.first_names)} {surname}")

    def title(self) -> str:
        """Return the title of a work."""

        def make() -> str:
            adjective, noun = self._dice.pick(ADJECTIVES), self._dice.pick(NOUNS)
            other = self._dice.pick(NOUNS)
            form = self._dice.below(3)
            if form == 0:
                return f"The {adjective} {noun}"
            if form == 1 or other == noun:
                return f"{adjective} {noun}"
            return f"{noun} of the {adjective} {other}"

        return self._new(make)

    def band(self) -> str:
        """Return the name of a band."""
        return self._new(lambda: f"The {self._dice.pick(ADJECTIVES)} {self._dice.pick(ANIMALS)}")

    def fixed(self, name: str) -> str:
        """Return a name made of others.

        Raises:
            ValueError: It was given before.
        """
        if not self._is_new(name):
            raise ValueError(f"the name {name!r} was given before")
        return name

    def _new(self, make: Callable[[], str]) -> str:
        while True:
            name = make()
            if self._is_new(name):
                return name

    def _is_new(self, name: str) -> bool:
        normal = normalize_answer(name)
        if normal in self._taken:
            return False
        self._taken.add(normal)
        return True
