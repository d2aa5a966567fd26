"""The words of an index as two arrays, so that processes share them as they share the scores."""

import bisect
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Vocabulary"]

LETTERS, ENDS = "vocabulary.letters.npy", "vocabulary.ends.npy"


class Vocabulary:
    """Words in alphabetical order; a word's id is its number in it. Found by bisection.

    A dictionary of 140,000 words would take some 15 MB and 50 ms in every process.

    Args:
        letters: The words end to end, in ASCII, shape (number of letters,).
        ends: Where each word ends, shape (number of words,).
    """

    def __init__(self, letters: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._letters = letters
        self._ends = ends
        self._bytes = letters.data

    @classmethod
    def of(cls, words: Iterable[str]) -> Self:
        """Return the vocabulary of some words, in any order and with repetitions."""
        spelled = [word.encode("ascii") for word in sorted(set(words))]
        ends = np.cumsum([len(word) for word in spelled], dtype=np.int64)
        return cls(np.frombuffer(b"".join(spelled), dtype=np.uint8), ends)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map what `save` wrote into memory."""
        letters, ends = (np.load(folder / name, mmap_mode="r") for name in (LETTERS, ENDS))
        return cls(np.asarray(letters), np.asarray(ends))

    def save(self, folder: Path) -> None:
        """Write both arrays into a folder."""
        np.save(folder / LETTERS, self._letters)
        np.save(folder / ENDS, self._ends)

    def __len__(self) -> int:
        return len(self._ends)

    def id_of(self, word: str) -> int | None:
        """Return the id of a word, or None when it is not one of these."""
        wanted = word.encode()
        place = bisect.bisect_left(range(len(self)), wanted, key=self._word)
        return place if place < len(self) and self._word(place) == wanted else None

    def _word(self, place: int) -> bytes:
        start = int(self._ends[place - 1]) if place else 0
        return bytes(self._bytes[start : int(self._ends[place])])
