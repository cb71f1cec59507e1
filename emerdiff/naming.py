"""Names: which of some words each segment shows, by an image–text model (paper, open-vocabulary segmentation).

The embeddings of a picture's patches are averaged over each segment first, and only then compared with the words'. The
probabilities of a segment are the softmax of its similarities, at the model's own scale. There is no background: a
segment whose best word is not probable enough stays unnamed, and whoever wants to tell a background from the rest adds
a word for it, such as "background".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .filenames import readable
from .masks import pooled
from .segmentation import Segmentation

MOST_WORDS, LONGEST_WORD = 1000, 80  # with synonyms; characters, as many as an exported name may have
SURE = 0.5  # the probability from which a segment is named
SYNONYMS = "|"
RANKED = 3  # words that are told of each segment


class ImageText(Protocol):
    """An image–text model: embeddings of a picture, and how similar they are to words."""

    scale: float
    """What similarities are multiplied by before the softmax."""

    def embed(self, image: np.ndarray) -> np.ndarray:
        """Embeddings (h, w, d) float32 of a picture (H, W, 3) uint8 RGB, on a grid over the whole picture."""

    def similarities(self, embeddings: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """(n, words) float32 for embeddings (n, d), each the mean of a segment's."""


@dataclass(frozen=True)
class Words:
    """Words to name segments by. A word may be given as synonyms: "sofa|couch", of which the best counts.

    Raises `ValueError` unless there are 2 to 1,000, synonyms included, none repeated and none over 80 characters.
    """

    groups: tuple[tuple[str, ...], ...]
    """The synonyms of each word; the first is the name that segments get."""

    def __post_init__(self) -> None:
        every = self.every
        if len(self.groups) < 2:
            found = f"only {self.groups[0][0]!r}" if self.groups else "none"
            raise ValueError(f"give at least two words, since a name is a choice between words: there is {found}")
        if len(every) > MOST_WORDS:
            raise ValueError(f"there are {len(every)} words, synonyms included; at most {MOST_WORDS} are allowed")
        if long := [word for word in every if len(word) > LONGEST_WORD]:
            raise ValueError(
                f"a word may have at most {LONGEST_WORD} characters, not {len(long[0])}: {long[0][:40]!r}…"
            )
        seen: set[str] = set()
        for word in every:
            if word.casefold() in seen:
                raise ValueError(f"{word!r} is there twice: each word and each synonym may be given once")
            seen.add(word.casefold())

    @classmethod
    def of(cls, given: "str | Iterable[str] | Words") -> "Words":
        """From a text with commas or line breaks between words, or from words; white space around them is dropped."""
        if isinstance(given, Words):
            return given
        parts = re.split(r"[,\n]", given) if isinstance(given, str) else given
        groups = (tuple(filter(None, map(readable, part.split(SYNONYMS)))) for part in parts)
        return cls(tuple(filter(None, groups)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(group[0] for group in self.groups)

    @property
    def every(self) -> tuple[str, ...]:
        """All synonyms of all words, in order."""
        return tuple(word for group in self.groups for word in group)

    def __str__(self) -> str:
        return ", ".join(SYNONYMS.join(group) for group in self.groups)


@dataclass(frozen=True)
class Ranked:
    word: str
    probability: float


@dataclass(frozen=True, eq=False)
class Names:
    """What each of k segments shows, of n words. A segment without pixels has no name, and NaN everywhere."""

    words: tuple[str, ...]
    """The first of each word's synonyms."""
    similarities: np.ndarray
    """(k, n) float32: of each segment to the best synonym of each word."""
    probabilities: np.ndarray
    """(k, n) float32: their softmax at the model's scale; each row adds up to 1."""

    @property
    def margins(self) -> np.ndarray:
        """(k,): how far the second probability falls short of the first."""
        ordered = np.sort(self.probabilities, axis=1)
        return ordered[:, -1] - ordered[:, -2]

    def ranked(self, segment: int) -> tuple[Ranked, ...]:
        """All words, the most probable first; none for a segment without pixels."""
        p = self.probabilities[segment]
        order = np.argsort(-p, kind="stable") if np.isfinite(p).all() else ()
        return tuple(Ranked(self.words[i], float(p[i])) for i in order)

    def name(self, segment: int, sure: float = SURE) -> str | None:
        """The most probable word; None if its probability is below `sure`, and for a segment without pixels."""
        ranked = self.ranked(segment)
        return ranked[0].word if ranked and ranked[0].probability >= sure else None

    def told(self, segment: int, sure: float = SURE) -> str:
        """The name, or "unsure: car or boat", or nothing for a segment without pixels."""
        if not (ranked := self.ranked(segment)):
            return ""
        return self.name(segment, sure) or f"unsure: {ranked[0].word} or {ranked[1].word}"

    def best(self) -> np.ndarray:
        """(k,) int: the index of the most probable word, however probable; -1 for a segment without pixels."""
        known = np.isfinite(self.probabilities).all(1)
        return np.where(known, np.nan_to_num(self.probabilities).argmax(1), -1)

    def summary(self, segment: int, sure: float = SURE) -> dict:
        """A segment's name and its most probable words as plain values, for JSON."""
        ranked = [{"word": r.word, "probability": round(r.probability, 4)} for r in self.ranked(segment)[:RANKED]]
        return {"name": self.name(segment, sure), "words": ranked}


def name_segments(
    segmentation: Segmentation | Sequence[Segmentation], words: "str | Iterable[str] | Words", model: ImageText
) -> Names:
    """The names of a segmentation's segments among `words`, by an image–text model.

    A segment of several pictures that were segmented together has one name: it goes by its pixels in all of them.
    Raises `ValueError` for words that are not allowed.
    """
    words = Words.of(words)  # before the network runs
    several = [segmentation] if isinstance(segmentation, Segmentation) else segmentation
    pictures = [(one.labels, model.embed(one.image)) for one in several]
    return names(pictures, words, model, several[0].settings.num_segments)


def names(
    pictures: Sequence[tuple[np.ndarray, np.ndarray]], words: Words, model: ImageText, num_segments: int
) -> Names:
    """The same for labels (H, W) in 0..num_segments - 1 and the model's embeddings (h, w, d) of each picture."""
    pools = [pooled(labels, embeddings, num_segments) for labels, embeddings in pictures]
    sums, pixels = (sum(parts) for parts in zip(*pools, strict=True))
    shown = pixels > 0
    similarities = np.full((num_segments, len(words.groups)), np.nan, np.float32)
    means = (sums[shown] / pixels[shown, None]).astype(np.float32)
    similarities[shown] = grouped(model.similarities(means, words.every), words)
    return Names(words.names, similarities, softmax(model.scale * similarities))


def grouped(similarities: np.ndarray, words: Words) -> np.ndarray:
    """The best of each word's synonyms: (n, every synonym) -> (n, words)."""
    starts = np.cumsum([0, *map(len, words.groups[:-1])])
    return np.maximum.reduceat(similarities, starts, axis=1)


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last axis; NaN stays NaN."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
