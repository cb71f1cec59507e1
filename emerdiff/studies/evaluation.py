"""EmerDiff and its competitors on a dataset: picture by picture into a folder, then the scores of all.

A run that is killed goes on where it was, and several processes (`accelerate launch`, `torchrun`) share the pictures:
what is done is in the folder, one JSON line and one NPZ for each picture, and the scores are computed from that alone,
in the order of the pictures' names.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from PIL import Image

from ..errors import in_a_line
from ..pipeline import EmerDiffPipeline
from ..settings import Settings
from . import scoring
from .competitors import EMERDIFF, METHODS
from .datasets import Dataset
from .scoring import TOLERANCES, Table

ROWS_PER_BATCH = 16  # fixed, so that rounding does not depend on the memory that is free


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: the folder of a run belongs to one of these."""

    dataset: str
    train: str | None
    """Where the modified protocol's concepts come from; without it that protocol is left out."""
    model: str
    settings: Settings
    methods: tuple[str, ...]

    def check(self) -> None:
        """`ValueError` for methods that there are not, or twice."""
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"there is no method {unknown[0]!r}; there are {', '.join(METHODS)}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError("a method is named twice")


def processes() -> PartialState:
    """This process among those that `accelerate launch` or, without a GPU, `torchrun` has started."""
    return PartialState(cpu=not torch.cuda.is_available())


def claim(out: Path, evaluation: Evaluation) -> None:
    """Make `out` the folder of this evaluation; `ValueError` if it is another's."""
    evaluation.check()
    out.mkdir(parents=True, exist_ok=True)
    described, file = json.loads(json.dumps(asdict(evaluation))), out / "evaluation.json"
    if file.exists() and (found := json.loads(file.read_text())) != described:
        changed = ", ".join(key for key in described if found.get(key) != described[key])
        raise ValueError(f"{out} holds another evaluation (its {changed} differs): choose another folder")
    file.write_text(json.dumps(described, indent=1) + "\n")


def run(
    pipe: EmerDiffPipeline, evaluation: Evaluation, dataset: Dataset, train: Dataset | None, out: Path
) -> Iterator[tuple[int, int]]:
    """Do this process's share of the pictures that `out` lacks; yields how many of how many are done, after each.

    A picture that fails is written down with the reason, and the others go on. The end is reached when all
    processes have reached theirs.
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
    state.wait_for_everyone()  # no process writes before all have read
    with (out / f"lines-{state.process_index}.jsonl").open("a") as log:
        if log.tell():
            log.write("\n")  # the last line may have been cut off
        for i, (kind, name, source) in enumerate(tasks):
            line = {"kind": kind, "picture": name}
            try:
                image, truth = source.load(name)
                do = _learn if kind == "train" else _judge
                line |= do(pipe, evaluation, image, truth, out / kind / f"{name}.npz", len(source.classes))
            except Exception as error:  # whatever it is, the other pictures are still judged
                line["error"] = in_a_line(error)
            log.write(json.dumps(line) + "\n")
            log.flush()
            yield i + 1, len(tasks)
    state.wait_for_everyone()


def _judge(pipe, evaluation: Evaluation, image, truth: np.ndarray, file: Path, num_classes: int) -> dict:
    """Segment a picture with every method and keep their tables; returns its line: seconds and scores."""
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
    """Keep the sums of the features of each class's pixels."""
    features = pipe.features(image, evaluation.settings)
    sums, pixels = scoring.pooled(truth.astype(int), features, num_classes)
    present = np.flatnonzero(pixels)
    _save(file, {"classes": present, "sums": sums[present], "pixels": pixels[present]})
    return {"classes": len(present)}


def _save(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    whole = file.with_suffix(".part")
    with whole.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    whole.replace(file)


def lines(out: Path) -> list[dict]:
    """The lines of all processes, by kind and picture; one that was cut off is as if it were not there."""
    found = {}
    for file in sorted(out.glob("lines-*.jsonl")):
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found[line["kind"], line["picture"]] = line
    return [found[key] for key in sorted(found)]


# ---------------------------------------------------------------- scores


def summarize(out: Path) -> dict:
    """Scores of each method under each protocol, 0 to 1, and how far EmerDiff's exceed them, with 95 % intervals.

    `{"pictures": n, "errors": {...}, "scores": {method: {score: value}}, "gains": {method: {score: [gain, low,
    high]}}}`; gains are EmerDiff's over the method.
    """
    evaluation, done = json.loads((out / "evaluation.json").read_text()), lines(out)
    errors = {line["picture"]: line["error"] for line in done if "error" in line}
    names = [line["picture"] for line in done if line["kind"] == "pictures" and "error" not in line]
    if not names:
        raise ValueError(f"no picture could be evaluated: {next(iter(errors.values()), 'there is none')}")
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
    """By the score's name: the function of pictures that gives it, and what of each picture that needs."""
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
    """Mean feature of each class, (classes, c), NaN for those that no picture has; None without pictures."""
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
    """The scores as a Markdown table: per cent, and EmerDiff's gain over the others with its interval."""
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
    """A panel for each score; a bar for each method, with the interval of EmerDiff's gain drawn on it."""
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
    shown.supxlabel("per cent; lines: 95 % of where the method lies, seen from EmerDiff", fontsize=8)
    return shown
