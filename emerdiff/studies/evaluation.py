"""Evaluates EmerDiff and its competitors on a dataset: each picture's results go into a folder, then all are scored.

The folder has a JSON line and an NPZ file for each picture that is done, and the scores are computed from these alone,
in the order of the pictures' names. So an evaluation that was stopped can be continued, and several processes
(`accelerate launch`, `torchrun`) can share the pictures.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..batches import ROWS_PER_BATCH
from ..masks import pooled
from ..pipeline import EmerDiffPipeline
from ..processes import processes
from ..settings import Settings
from . import results, scoring
from .competitors import EMERDIFF, METHODS
from .datasets import Dataset
from .scoring import TOLERANCES, Table


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated. A folder of results belongs to one evaluation."""

    dataset: str
    train: str | None
    """The dataset from which the modified protocol learns the mean feature of each class; None leaves it out."""
    model: str
    settings: Settings
    methods: tuple[str, ...]

    def check(self) -> None:
        """Raises `ValueError` for a method that does not exist or is named twice."""
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"methods must be among {', '.join(METHODS)}, not {unknown[0]!r}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("each method can be named only once")


def claim(out: Path, evaluation: Evaluation) -> None:
    """Makes `out` the folder of this evaluation. Raises `ValueError` if it holds another one."""
    evaluation.check()
    out.mkdir(parents=True, exist_ok=True)
    results.claim(out, asdict(evaluation))


def run(
    pipe: EmerDiffPipeline, evaluation: Evaluation, dataset: Dataset, train: Dataset | None, out: Path
) -> Iterator[tuple[int, int]]:
    """Evaluates this process's share of the pictures that `out` lacks; yields the number done and the total after each.

    A picture that fails is recorded with the reason, and the others are still evaluated. The generator ends when
    those of all processes do.
    """
    state = processes()
    if state.is_main_process:
        claim(out, evaluation)
        for kind in ("pictures", "train"):
            (out / kind).mkdir(exist_ok=True)
    state.wait_for_everyone()
    done = {(line["kind"], line["picture"]) for line in lines(out)}
    tasks = [("pictures", name, dataset) for name in dataset.names]
    tasks += [("train", name, train) for name in (train.names if train else ())]
    tasks = [task for task in tasks if task[:2] not in done][state.process_index :: state.num_processes]
    state.wait_for_everyone()  # no process writes until all have read

    def work(kind: str, name: str, source: Dataset) -> dict:
        image, truth = source.load(name)
        do = _learn if kind == "train" else _score
        return do(pipe, evaluation, image, truth, out / kind / f"{name}.npz", len(source.classes))

    recorded = [({"kind": kind, "picture": name}, partial(work, kind, name, of)) for kind, name, of in tasks]
    yield from results.record(out / f"lines-{state.process_index}.jsonl", recorded)
    state.wait_for_everyone()


def _score(pipe, evaluation: Evaluation, image, truth: np.ndarray, file: Path, num_classes: int) -> dict:
    """Segments a picture with every method and saves the tables; returns seconds and scores for its line."""
    begin = time.perf_counter()
    result = pipe(image, evaluation.settings, rows_per_batch=ROWS_PER_BATCH)
    own_seconds = time.perf_counter() - begin
    kept, line = {}, {}
    for method in evaluation.methods:
        begin = time.perf_counter()
        if method == EMERDIFF:
            labels = result.labels_at(truth.shape[::-1])
        else:
            labels = METHODS[method](pipe, result)
            labels = np.asarray(Image.fromarray(labels).resize(truth.shape[::-1], Image.Resampling.NEAREST))
        seconds = time.perf_counter() - begin + (own_seconds if method == EMERDIFF else 0)
        table = scoring.tabulate(labels, truth, result.features, num_classes)
        kept |= {f"{method}/{name}": value for name, value in vars(table).items()}
        line[method] = {
            "seconds": round(seconds, 3),
            "segments": len(table.counts),
            "majority_accuracy": scoring.accuracy(scoring.majority([table])),
            "boundary_f": [scoring.boundary_f(edges[None]) for edges in table.edges],
        }
    _save(file, kept)
    return line


def _learn(pipe, evaluation: Evaluation, image, truth: np.ndarray, file: Path, num_classes: int) -> dict:
    """Saves the sums of the features of each class's pixels."""
    features = pipe.features(image, evaluation.settings)
    sums, pixels = pooled(truth.astype(int), features, num_classes)
    present = np.flatnonzero(pixels)
    _save(file, {"classes": present, "sums": sums[present], "pixels": pixels[present]})
    return {"classes": len(present)}


def _save(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    whole = file.with_suffix(".part")
    with whole.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    whole.replace(file)


def lines(out: Path) -> list[dict]:
    """The lines of all processes, sorted by kind and picture, without incomplete ones."""
    return results.lines(out, "kind", "picture")


# ---------------------------------------------------------------- scores


def summarize(out: Path) -> dict:
    """Scores of each method under each protocol, 0 to 1, and EmerDiff's gains over them, with 95 % intervals.

    Returns `{"pictures": n, "errors": {...}, "scores": {method: {score: value}}, "gains": {method: {score: [gain, low,
    high]}}}`.
    """
    evaluation, done = json.loads((out / "evaluation.json").read_text()), lines(out)
    errors = {line["picture"]: line["error"] for line in done if "error" in line}
    names = [line["picture"] for line in done if line["kind"] == "pictures" and "error" not in line]
    if not names:
        raise ValueError(f"no picture could be evaluated: {next(iter(errors.values()), 'there are none')}")
    concepts = _concepts(out, [line["picture"] for line in done if line["kind"] == "train" and "error" not in line])
    measured = {method: _measure(out, names, method, concepts) for method in evaluation["methods"]}
    seconds = {
        method: float(np.mean([line[method]["seconds"] for line in done if method in line])) for method in measured
    }
    scores = {
        method: {name: score(values) for name, (score, values) in of.items()} | {"seconds": seconds[method]}
        for method, of in measured.items()
    }
    gains = {}
    for method, of in measured.items():
        if EMERDIFF in measured and method != EMERDIFF:
            gains[method] = {
                name: [
                    scores[EMERDIFF][name] - scores[method][name],
                    *scoring.interval(score, measured[EMERDIFF][name][1], values),
                ]
                for name, (score, values) in of.items()
            }
    return {"pictures": len(names), "errors": errors, "scores": scores, "gains": gains}


def _measure(out: Path, names: Sequence[str], method: str, concepts: np.ndarray | None) -> dict:
    """By name of the score: a function of arrays (n, ...) that computes it, and its array for these pictures."""
    tables = []
    for name in names:
        with np.load(out / "pictures" / f"{name}.npz") as kept:
            tables.append(Table(**{field: kept[f"{method}/{field}"] for field in ("counts", "embeddings", "edges")}))
    by_protocol = {
        "traditional": scoring.traditional(tables),
        "modified": None if concepts is None else scoring.modified(tables, concepts),
        "hungarian": scoring.hungarian(tables),
        "majority": scoring.majority(tables),
    }
    measured = {name: (scoring.miou, of) for name, of in by_protocol.items() if of is not None}
    edges = np.stack([table.edges for table in tables])  # (n, tolerances, 4)
    return measured | {f"boundary F {t} px": (scoring.boundary_f, edges[:, i]) for i, t in enumerate(TOLERANCES)}


def _concepts(out: Path, names: Sequence[str]) -> np.ndarray | None:
    """Mean feature of each class, (classes, c), NaN for classes in none of the pictures; None without pictures."""
    sums: dict[int, np.ndarray] = {}
    pixels: dict[int, float] = {}
    for name in names:
        with np.load(out / "train" / f"{name}.npz") as kept:
            for c, total, count in zip(kept["classes"].tolist(), kept["sums"], kept["pixels"], strict=True):
                sums[c], pixels[c] = sums.get(c, 0) + total, pixels.get(c, 0) + count
    if not sums:
        return None
    concepts = np.full((max(sums) + 1, len(next(iter(sums.values())))), np.nan)
    for c, total in sums.items():
        concepts[c] = total / pixels[c]
    return concepts


def markdown(summary: Mapping) -> str:
    """The scores as a Markdown table, in per cent, with EmerDiff's gain over each method and its interval."""
    columns = [name for name in next(iter(summary["scores"].values())) if name != "seconds"]
    rows = [["", *columns, "seconds"], ["---"] * (len(columns) + 2)]
    for method, scores in summary["scores"].items():
        cells = []
        for column in columns:
            cell = f"{100 * scores[column]:.1f}"
            if gain := summary["gains"].get(method, {}).get(column):
                cell += " ({:+.1f}: {:+.1f} to {:+.1f})".format(*(100 * value for value in gain))
            cells.append(cell)
        rows.append([method, *cells, f"{scores['seconds']:.2f}"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def figure(summary: Mapping) -> Figure:
    """A panel for each score with a bar for each method, on which the interval of EmerDiff's gain is drawn."""
    columns = [name for name in next(iter(summary["scores"].values())) if name != "seconds"]
    methods = list(summary["scores"])
    shown = Figure(figsize=(2.1 * len(columns), 0.4 * len(methods) + 1.2), layout="constrained")
    panels = shown.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        values = [100 * summary["scores"][method][column] for method in methods]
        panel.barh(methods, values, color=["C0" if method == EMERDIFF else "0.7" for method in methods])
        for row, method in enumerate(methods):
            if gain := summary["gains"].get(method, {}).get(column):
                own = 100 * summary["scores"][EMERDIFF][column]
                panel.plot([own - 100 * gain[1], own - 100 * gain[2]], [row, row], color="0.2", linewidth=1.5)
        panel.set_title(column if column.startswith("boundary") else f"mIoU, {column}", fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    shown.supxlabel("per cent; lines: 95 % interval of the difference from EmerDiff", fontsize=8)
    return shown
