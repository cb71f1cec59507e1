"""Open vocabulary: how well an image–text model names what a picture shows, alone and with segments (paper, Table 3).

Each pixel gets one of the words; mIoU is over the words in the truth, from one confusion matrix over all pictures. The
model alone gives each pixel the most similar word, after its similarities have been upsampled. With masks, its
embeddings are averaged over each segment first. True masks, those of the ground truth, are the ceiling.

The folder of results has a JSON line for each picture that is done, so that an evaluation can be continued.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..batches import ROWS_PER_BATCH
from ..naming import ImageText, Words, grouped, names
from ..pipeline import EmerDiffPipeline
from ..segmentation import Segmentation
from ..settings import Settings
from . import results, scoring
from .datasets import VOID, Dataset, Scenes
from .layouts import PLAIN_WORDS, text_lines

ALONE, NAIVE, OURS, TRUE = ROWS = ("model alone", "naive masks", "EmerDiff masks", "true masks")


@dataclass(frozen=True)
class Vocabulary:
    """The word of each class of a dataset; classes of the same word count as one."""

    lines: tuple[str, ...]
    """By class: a word, or synonyms with "|" between them."""

    @cached_property
    def words(self) -> Words:
        return Words.of(dict.fromkeys(self.lines))

    @cached_property
    def word_of_class(self) -> np.ndarray:
        """(256,) uint8: the index of the word; void for void and for numbers that are no class."""
        order = {line: i for i, line in enumerate(dict.fromkeys(self.lines))}
        table = np.full(256, VOID, np.uint8)
        table[: len(self.lines)] = [order[line] for line in self.lines]
        return table

    def words_at(self, labels: np.ndarray) -> np.ndarray:
        """The index of the word of each pixel, uint8, for classes (H, W) uint8; void stays void.

        Raises `ValueError` for a class that has no line.
        """
        found = self.word_of_class[labels]
        if strange := sorted({*np.unique(labels[found == VOID]).tolist()} - {VOID}):
            raise ValueError(f"its labels have class {strange[0]}, for which there is no line of words")
        return found


def vocabulary(dataset: Dataset, file: Path | None) -> Vocabulary:
    """From a text file with a line for each class, in order; None: a folder's own, or the drawn world's.

    Raises `ValueError` if the lines are not one for each class, or none are to be had.
    """
    given = dataset.words if file is None else text_lines(file) if file.exists() else None
    source, most = file or PLAIN_WORDS, len(dataset.classes)
    if given is None:
        raise ValueError(f"{source} is missing: it needs a line for each class, the word to call it by; or use --words")
    if len(given) > most or (len(given) < most and isinstance(dataset, Scenes)):
        raise ValueError(f"{source} must have a line for each of {most} classes, not {len(given)}")
    found = Vocabulary(given)
    if len(found.words.groups) > VOID:  # checks them as well
        raise ValueError(f"{source} has {len(found.words.groups)} words; at most {VOID} can be told apart")
    return found


def named(result: Segmentation, truth: np.ndarray, vocabulary: Vocabulary, model: ImageText) -> dict[str, np.ndarray]:
    """By row: the index of the word of each pixel, (H, W), for a picture whose true words are `truth` (H, W)."""
    words, size = vocabulary.words, truth.shape[::-1]
    dense, k = model.embed(result.image), result.settings.num_segments
    h, w, d = dense.shape
    similar = grouped(model.similarities(dense.reshape(h * w, d), words.every), words).reshape(h, w, -1)
    maps = (
        np.asarray(Image.fromarray(of).resize(size, Image.Resampling.BILINEAR)) for of in np.moveaxis(similar, 2, 0)
    )
    masks = {NAIVE: (result.naive_labels_at(size), k), OURS: (result.labels_at(size), k)}
    masks[TRUE] = truth.astype(int), len(words.groups)
    found = {ALONE: np.stack([*maps]).argmax(0)}
    for row, (labels, count) in masks.items():
        best = names([(labels, dense)], words, model, count).best()
        found[row] = best[np.minimum(labels, count - 1)]
    return found


def counted(found: np.ndarray, truth: np.ndarray, count: int) -> np.ndarray:
    """(3, words) int64: pixels rightly given each word, truly showing it, and given it; without void."""
    judged = truth != VOID
    found, truth = found[judged], truth[judged]
    return np.stack([np.bincount(of, minlength=count) for of in (truth[found == truth], truth, found)])


def run(
    pipe: EmerDiffPipeline,
    settings: Settings,
    dataset: Dataset,
    vocabulary: Vocabulary,
    model_of: Callable[[str], ImageText],
    out: Path,
    what: Mapping[str, str],
) -> Iterator[tuple[int, int]]:
    """Evaluates the pictures that `out` lacks; yields the number done and the total after each.

    `model_of` has the image–text model for the name of a picture; `what` says which dataset and models these are: a
    folder belongs to one evaluation. A picture that fails is recorded with the reason.
    """
    results.claim(out, {**what, "lines": vocabulary.lines, "settings": asdict(settings)})
    done, count = {line["picture"] for line in lines(out)}, len(vocabulary.words.groups)

    def work(name: str) -> dict:
        begun = time.perf_counter()
        image, labels = dataset.load(name)
        truth = vocabulary.words_at(labels)
        model = model_of(name)  # before the network runs, as it may be a map that cannot be read
        result = pipe(image, settings, rows_per_batch=ROWS_PER_BATCH)
        of_rows = named(result, truth, vocabulary, model)
        counts = {row: counted(of, truth, count).tolist() for row, of in of_rows.items()}
        return {"counts": counts, "seconds": round(time.perf_counter() - begun, 3)}

    left = [({"picture": name}, partial(work, name)) for name in dataset.names if name not in done]
    yield from results.record(out / "lines.jsonl", left)


def lines(out: Path) -> list[dict]:
    """The lines of the pictures that are done, sorted by name, without incomplete ones."""
    return results.lines(out, "picture")


def summarize(out: Path) -> dict:
    """mIoU and accuracy of each row, 0 to 1, and what EmerDiff's masks gain over the others, with 95 % intervals."""
    done = lines(out)
    errors = {line["picture"]: line["error"] for line in done if "error" in line}
    kept = [line for line in done if "error" not in line]
    if not kept:
        raise ValueError(f"no picture could be evaluated: {next(iter(errors.values()), 'there are none')}")
    counts = {row: np.array([line["counts"][row] for line in kept]) for row in ROWS}
    scores = {row: {"miou": scoring.miou(of), "accuracy": scoring.accuracy(of)} for row, of in counts.items()}
    gains = {
        row: {
            name: [scores[OURS][name] - scores[row][name], *scoring.interval(score, counts[OURS], counts[row])]
            for name, score in (("miou", scoring.miou), ("accuracy", scoring.accuracy))
        }
        for row in ROWS
        if row != OURS
    }
    return {"pictures": len(kept), "errors": errors, "scores": scores, "gains": gains}


def markdown(summary: Mapping) -> str:
    """The scores as a Markdown table, in per cent, with what EmerDiff's masks gain over each row and its interval."""
    rows: list[Sequence[str]] = [["", "mIoU", "accuracy"], ["---"] * 3]
    for row, scores in summary["scores"].items():
        cells = []
        for name, score in scores.items():
            cell = f"{100 * score:.1f}"
            if gain := summary["gains"].get(row, {}).get(name):
                cell += " ({:+.1f}: {:+.1f} to {:+.1f})".format(*(100 * value for value in gain))
            cells.append(cell)
        rows.append([row, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
