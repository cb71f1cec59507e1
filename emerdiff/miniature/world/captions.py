"""One sentence on what a scene shows."""

import numpy as np

from .canvas import Canvas
from .materials import CLASSES, INDEX

NUMBERS = ("no", "one", "two", "three")
PLURALS = {"person": "people", "sheep": "sheep", "bush": "bushes"}
MASS = {"water": "water", "soil": "soil", "pavement": "pavement", "meadow": "grass"}
TIME_PHRASES = {
    "day": "by day",
    "morning": "in the morning",
    "sunset": "at sunset",
    "dusk": "at dusk",
    "night": "at night",
    "overcast": "on a grey day",
}


def describe(c: Canvas, rng) -> str:
    """One sentence on the season, the time and the things that take up enough of the frame."""
    seen = _seen(c)
    # Things come before the ground and the sky, unless these take up a fifth of the frame more.
    order = sorted(seen, key=lambda noun: -sum(s for s, _ in seen[noun]) - 0.2 * (noun not in (*MASS, "sky")))
    phrases = [_phrase(rng, noun, [word for _, word in seen[noun]]) for noun in order[: int(rng.integers(3, 6))]]
    things = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    when, season = TIME_PHRASES[c.time], c.season
    article = "an" if season == "autumn" else "a"
    indoors = [f"a room {when} with {things}", f"{things} in a room", f"a picture of {things}", things]
    outdoors = [
        f"{article} {season} scene {when} with {things}",
        f"{things} {when} in {season}",
        f"{things}, {season}, {when}",
        f"a picture of {things} {when}",
        f"{article} {season} view of {things}",
        things,
    ]
    return str(rng.choice(indoors if c.indoors else outdoors))


AMOUNTS = {"most": 0.5, "much": 0.25, "some": 0.1, "little": 0.03, "a trace": 0.004}
"""Words for how much of a picture something takes up, and from which share on each of them is used."""


def amounts(c: Canvas, window: tuple[slice, slice] = np.s_[:, :]) -> dict[str, str]:
    """What is seen in a window of the frame, the largest first, and how much of each: a word of `AMOUNTS`."""
    seen = c.objects[window]
    pixels = np.bincount(seen.ravel(), minlength=len(c.tags))
    shares: dict[str, float] = {}
    for (_, noun, _), count in zip(c.tags, pixels, strict=True):
        shares[noun] = shares.get(noun, 0) + count / seen.size
    ordered = sorted((noun for noun in shares if shares[noun] >= AMOUNTS["a trace"]), key=lambda noun: -shares[noun])
    return {noun: next(word for word, least in AMOUNTS.items() if shares[noun] >= least) for noun in ordered}


def _seen(c: Canvas) -> dict[str, list[tuple[float, str]]]:
    """Per noun, the share of the frame and the describing word of each object large enough to be named."""
    labels = np.bincount(c.labels.ravel(), minlength=len(CLASSES)) / c.codes.size
    shares = np.bincount(c.objects.ravel(), minlength=len(c.tags)) / c.codes.size
    seen: dict[str, list[tuple[float, str]]] = {}
    for (word, noun, part), share in zip(c.tags, shares, strict=True):
        if share >= 0.006 and labels[INDEX[part]] >= 0.006:
            seen.setdefault(noun, []).append((share, word))
    return seen


def _phrase(rng, noun: str, words: list[str]) -> str:
    """Objects of one noun with their number, and the word that describes them if they share it."""
    word = words[0] if len(set(words)) == 1 else ""
    before, after = (word + " " if word else ""), ""
    if word and noun == "person":
        before, after = "", f" in {word}"
    if noun in MASS:
        return before + MASS[noun]
    if len(words) == 1 or noun in ("sky", "wood"):
        article = "an " if (before or noun)[0] in "aeiou" else "a "
        return article + before + noun + after
    count = NUMBERS[len(words)] if len(words) < 4 else str(rng.choice(["several", "many"]))
    return f"{count} {before}{PLURALS.get(noun, noun + 's')}{after}"
