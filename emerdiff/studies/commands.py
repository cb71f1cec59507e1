"""The commands of the studies: their options, and what they print and write."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from ..dataset import folder
from ..imagetext import load_by_picture, load_image_text
from ..loading import MINIATURE, best_device, load
from ..miniature.scenes import draw_scene
from ..options import (
    add_dtype,
    add_model,
    add_settings,
    count,
    figure_file,
    fixed_number,
    open_folder,
    open_model,
    output_file,
    settings_of,
)
from ..processes import processes
from ..quiet import quiet
from ..settings import PRESETS, Settings
from ..terminal import say
from . import ablation as ablations
from . import benchmark as benchmarks
from . import evaluation as evaluations
from . import granularity as granularities
from . import pairs as pairings
from . import students
from . import sweep as sweeps
from . import vocabulary as vocabularies
from .competitors import METHODS
from .datasets import VOID, Scenes, open_dataset
from .layouts import PLAIN_WORDS
from .results import check_own

SD_SIZE = "sd-size"
STUDENTS = "students.json"


def add(commands) -> None:
    """Adds the commands to the subparsers of an `ArgumentParser`; each sets `command`, the function that runs it."""
    evaluating = commands.add_parser("evaluate", help="score EmerDiff and others on pictures with ground truth")
    sources = "scenes:FIRST..LAST, scenes of one kind as room:FIRST..LAST, or the folder of a dataset"
    evaluating.add_argument("dataset", metavar="DATASET", help=sources)
    place = "folder for the results; an evaluation that it already holds is continued"
    evaluating.add_argument("--out", type=Path, required=True, metavar="DIR", help=place)
    learned = "dataset from which the modified protocol learns the mean feature of each class"
    evaluating.add_argument("--train", metavar="DATASET", help=learned)
    names = ", ".join(METHODS)
    evaluating.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME", help=f"any of {names}")
    add_model(evaluating)
    add_dtype(evaluating)
    add_settings(evaluating)
    evaluating.set_defaults(command=evaluate)

    drawing = commands.add_parser("draw", help="write drawn scenes as a folder with images/ and labels/")
    drawing.add_argument("dataset", metavar="SCENES", help="scenes:FIRST..LAST, or scenes of one kind")
    drawing.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    drawing.set_defaults(command=draw)

    teaching = commands.add_parser("student", help="train small segmenters on masks, and score what they learned")
    source = "folder of `segment` with the formats imagefolder and npz, or a dataset with truth, as for `evaluate`"
    teaching.add_argument("source", metavar="SOURCE", help=source)
    teaching.add_argument("--test", required=True, metavar="DATASET", help="dataset to score on")
    teaching.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for scores and students")
    named = "dataset with truth whose mean features tell the segments' words, instead of the image–text model"
    teaching.add_argument("--concepts", metavar="DATASET", help=named)
    masks = "which masks of SOURCE (default: EmerDiff)"
    teaching.add_argument("--masks", choices=students.MASKS, default="EmerDiff", help=masks)
    seeds = "of one student each (default: 0)"
    teaching.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help=seeds)
    teaching.add_argument("--steps", type=int, default=2000, help="0 for students that learn nothing (default: 2000)")
    clips = f"{MINIATURE!r} (default), the Hub id or folder of a CLIP"
    _add_names(teaching, clips)
    teaching.add_argument("--device", help="cuda, mps or cpu (default: the first of these that is available)")
    teaching.set_defaults(command=student)

    naming = commands.add_parser("vocabulary", help="score names: an image–text model alone and with masks")
    naming.add_argument("dataset", metavar="DATASET", help=sources)
    naming.add_argument("--out", type=Path, required=True, metavar="DIR", help=place)
    _add_names(naming, f"{clips}, or a folder of maps, NAME.npz")
    add_model(naming)
    add_dtype(naming)
    add_settings(naming)
    naming.set_defaults(command=name)

    sweeping = commands.add_parser("sweep", help="measure the cost and the loss of presets, on drawn scenes")
    sweeping.set_defaults(command=sweep)
    ablating = commands.add_parser("ablate", help="vary one setting at a time, as the paper does, on drawn scenes")
    ablating.set_defaults(command=ablate)
    pairing = commands.add_parser("pairs", help="score one set of segments in two pictures, on pairs of drawn scenes")
    pairing.set_defaults(command=pairs)
    for parser in (ablating, pairing):
        parser.add_argument("--preset", choices=PRESETS, default="exact", help="preset to start from (default: exact)")
    for parser in (sweeping, ablating):
        parser.add_argument("--figure", type=figure_file, metavar="FILE", help="PNG, SVG or PDF of the scores")
    for parser in (sweeping, ablating, pairing):
        parser.add_argument("--scenes", type=count, default=20, help="how many, or how many pairs (default: 20)")
        parser.add_argument("--first-seed", type=int, default=700_000, help="seed of the first (default: 700000)")
        parser.add_argument("--out", type=output_file, metavar="FILE", help="JSON of the table, kept up to date")
        parser.add_argument("--num-segments", type=fixed_number, default=12, metavar="N", help="default: 12")
        add_model(parser)
        add_dtype(parser)

    grading = commands.add_parser("granularity", help="score rules for the number of segments against a fixed number")
    grading.add_argument("datasets", nargs="+", metavar="DATASET", help=sources)
    grading.add_argument("--out", type=output_file, metavar="FILE", help="JSON of the table")
    add_model(grading)
    add_dtype(grading)
    add_settings(grading)
    grading.set_defaults(command=granularity)

    timing = commands.add_parser("benchmark", help="time the presets against the published procedure")
    timing.add_argument("--out", type=output_file, metavar="FILE", help="JSON of the table and the figure's points")
    timing.add_argument("--figure", type=figure_file, metavar="FILE", help="PNG, SVG or PDF of how time grows (slow)")
    timing.add_argument("--limit", type=float, default=120, help="seconds until a run is extrapolated (default: 120)")
    timing.add_argument("--num-segments", type=fixed_number, default=25, metavar="N", help="default: 25")
    add_model(timing)
    timing.set_defaults(command=benchmark)


def _add_names(parser: argparse.ArgumentParser, models: str) -> None:
    lines = "a line for each class, its word or synonyms with | between them; classes of the same line count as one"
    parser.add_argument("--words", type=Path, metavar="FILE", help=f"{lines} (default: the dataset's own)")
    parser.add_argument("--name-model", default=MINIATURE, metavar="MODEL", help=f"what tells names: {models}")


def evaluate(options: argparse.Namespace) -> int:
    """Scores EmerDiff and its competitors on a dataset with ground truth; continues where an earlier run ended."""
    state = processes()
    pipe, settings = open_model(options, device=state.device if state.num_processes > 1 else None)
    evaluation = evaluations.Evaluation(options.dataset, options.train, options.model, settings, tuple(options.methods))
    dataset, train = (source and open_dataset(source, pipe.native_side) for source in (options.dataset, options.train))
    open_folder(options.out)
    shown = state.is_main_process
    with tqdm(unit="picture", leave=False, disable=None if shown else True) as bar:
        for bar.n, bar.total in evaluations.run(pipe, evaluation, dataset, train, options.out):
            bar.refresh()
    if not shown:
        return 0
    summary = evaluations.summarize(options.out)
    table = evaluations.markdown(summary)
    _write_json(options.out / "summary.json", summary)
    (options.out / "summary.md").write_text(table + "\n", encoding="utf-8")
    evaluations.figure(summary).savefig(options.out / "summary.png", dpi=150)
    say(*(f"{picture}: {error}" for picture, error in summary["errors"].items()), file=sys.stderr)
    say(f"{summary['pictures']} pictures of {options.dataset}, {settings}", *table.splitlines())
    return 1 if summary["errors"] else 0


def draw(options: argparse.Namespace) -> int:
    """Writes drawn scenes and their labels as a folder that `evaluate`, `vocabulary` and `student` read."""
    scenes = open_dataset(options.dataset, students.DRAWN)
    if not isinstance(scenes, Scenes):
        raise ValueError(f"only scenes can be drawn, as scenes:900000..900999, not {options.dataset!r}")
    open_folder(options.out)
    check_own(options.out, PLAIN_WORDS)
    listed, classes = options.out / PLAIN_WORDS, "\n".join(vocabularies.vocabulary(scenes, None).lines) + "\n"
    if listed.exists() and listed.read_text() != classes:
        raise ValueError(f"{listed} has other classes than drawn scenes: choose a new folder")
    for kind in ("images", "labels"):
        open_folder(options.out / kind)
    listed.write_text(classes)
    for name in tqdm(scenes.names, unit="scene", leave=False, disable=None):
        for kind, pixels in zip(("images", "labels"), scenes.load(name), strict=True):
            Image.fromarray(pixels).save(options.out / kind / f"{name}.png")
    return 0


def student(options: argparse.Namespace) -> int:
    """Trains a student for each seed, and writes them, their scores, and the mean and spread of these."""
    test = _worded(options.test, options.words)
    open_folder(options.out)
    check_own(options.out, STUDENTS)
    lessons = _lessons(options, test)
    names = ("source", "masks", "concepts", "name_model", "test", "steps")
    told = {name: getattr(options, name) for name in names} | {"lessons": len(lessons)}
    grades, device = [], torch.device(options.device or best_device())
    for seed in options.seeds:
        learner, begin = students.new_student(test.words.names, seed).to(device), time.perf_counter()
        learning = students.teach(learner, lessons, options.steps, seed)
        for _ in tqdm(learning, f"student {seed}", options.steps, False, unit="step", disable=None):
            pass
        seconds = time.perf_counter() - begin
        grades.append(students.grade(learner, test, seed=seed, seconds=seconds))
        with quiet():
            learner.save_pretrained(options.out / f"seed-{seed}")
        _write_json(options.out / STUDENTS, told | students.summary(grades))
    result = students.summary(grades)
    for score in ("miou", "boundary_f", "accuracy"):
        say(f"{score:12}{100 * result['mean'][score]:6.1f} ± {100 * result['spread'][score]:.1f}")
    say(f"{len(grades)} students, {result['mean']['seconds']:.0f} s each")
    return 0


def _worded(source: str, words: Path | None) -> students.Worded:
    dataset = open_dataset(source, students.DRAWN)
    return students.Worded(dataset, vocabularies.vocabulary(dataset, words))


def _lessons(options: argparse.Namespace, test: students.Worded) -> list[students.Lesson]:
    run, of_run = Path(options.source), (Path(options.source) / folder.MANIFEST).exists()
    known = options.concepts if of_run else options.source
    if known and (truth := _worded(known, options.words)).words != test.words:
        raise ValueError(f"{known} and {options.test} must have the same words")
    if not of_run:
        found = students.of_truth(truth)
    else:
        told = json.loads((run / folder.MANIFEST).read_text(encoding="utf-8"))
        if lacking := {"imagefolder", "npz"} - set(told["formats"]):
            raise ValueError(f"{run} lacks {' and '.join(sorted(lacking))}: students need these two formats")
        if known:
            learning = students.learn_concepts(load(told["model"]), truth, Settings(**told["settings"]))
            *_, concepts = tqdm(learning, "concepts", len(truth.names), False, disable=None)
            tell = students.by_concepts(concepts)
        else:
            tell = students.by_words(test.words, load_image_text(options.name_model))
        found = students.of_masks(run, options.masks, tell)
    every = tqdm(found, "reading", unit="picture", leave=False, disable=None)
    if lessons := [lesson for lesson in every if (lesson.classes != VOID).any()]:
        return lessons
    raise ValueError(f"{options.source} has nothing to learn from: no pixel of it has a word")


def name(options: argparse.Namespace) -> int:
    """Scores names on a dataset with ground truth; continues where an earlier run ended."""
    pipe, settings = open_model(options)
    dataset = open_dataset(options.dataset, pipe.native_side)
    words = vocabularies.vocabulary(dataset, options.words)
    model_of = load_by_picture(options.name_model, dataset.names, device=pipe.unet.device)
    open_folder(options.out)
    what = {"dataset": options.dataset, "model": options.model, "name_model": options.name_model}
    with tqdm(unit="picture", leave=False, disable=None) as bar:
        for bar.n, bar.total in vocabularies.run(pipe, settings, dataset, words, model_of, options.out, what):
            bar.refresh()
    summary = vocabularies.summarize(options.out)
    table = vocabularies.markdown(summary)
    _write_json(options.out / "summary.json", summary)
    (options.out / "summary.md").write_text(table + "\n", encoding="utf-8")
    say(*(f"{picture}: {error}" for picture, error in summary["errors"].items()), file=sys.stderr)
    say(f"{summary['pictures']} pictures of {options.dataset}, {len(words.words.groups)} words", *table.splitlines())
    return 1 if summary["errors"] else 0


def sweep(options: argparse.Namespace) -> int:
    """Scores variants of the settings on drawn scenes, with their cost and their agreement with the exact run."""
    pipe, settings = open_model(options)
    rows = _over_scenes(lambda seeds: sweeps.sweep(pipe, seeds, settings.num_segments), settings, options)
    say(f"{'':34}{'seconds':>8}{'agreement':>10}{'mIoU':>8}{'Hungarian':>11}{'boundary F':>11}")
    for name, row in rows.items():
        agreed, *scores = (f"{row[score]:.1%}" for score in ("agreement", "miou", "hungarian", "boundary_f"))
        say(f"{name:34}{row['seconds']:8.2f}{agreed:>10}{scores[0]:>8}{scores[1]:>11}{scores[2]:>11}")
    if options.figure:
        sweeps.figure(rows).savefig(options.figure, dpi=120)
    return 0


def ablate(options: argparse.Namespace) -> int:
    """Scores the model's settings with one of them varied at a time, as the paper does."""
    pipe, settings = open_model(options)
    rows = _over_scenes(lambda seeds: ablations.ablate(pipe, seeds, settings), settings, options)
    say(f"{'':22}{'value':>8}{'mIoU':>8}{'naive':>8}{'boundary F':>12}{'naive':>8}")
    for name, values in rows.items():
        for row in values:
            scores = (f"{row[score]:.1%}" for score in ("miou", "naive_miou", "boundary_f", "naive_boundary_f"))
            say("{:22}{:>8}{:>8}{:>8}{:>12}{:>8}".format(name, str(row["value"]), *scores))
    if options.figure:
        own = vars(settings) | {"modulation_layer": pipe.layers.modulated_at(settings.modulation_layer).modulated}
        ablations.figure(rows, own).savefig(options.figure, dpi=120)
    return 0


def pairs(options: argparse.Namespace) -> int:
    """Scores pictures that are segmented together against separate runs whose segments are matched afterwards."""
    pipe, settings = open_model(options)
    rows = _over_scenes(lambda seeds: pairings.compare(pipe, seeds, settings), settings, options, each=2)
    say(f"{'':32}{'pairs':>8}{'together gains':>27}{'carried':>10}{'together gains':>27}")
    for name, row in rows.items():
        gains = ("{:+.1%} ({:+.1%} to {:+.1%})".format(*row[f"gain in {score}"]) for score in ("pairs", "carried"))
        say(f"{name:32}{row['pairs']:8.1%}{next(gains):>27}{row['carried']:10.1%}{next(gains):>27}")
    return 0


def granularity(options: argparse.Namespace) -> int:
    """Scores rules by which the number of segments follows from the picture against one fixed number."""
    pipe, settings = open_model(options)
    datasets = [open_dataset(source, pipe.native_side) for source in options.datasets]
    sets = []
    for dataset in datasets:
        run = granularities.read(pipe, dataset, settings)
        sets.append(list(tqdm(run, unit="picture", total=len(dataset.names), leave=False, disable=None)))
    rows = granularities.compare(sets)
    for i, source in enumerate(options.datasets):
        say(f"{source:36}{'best at':>9}{'mIoU':>8}{'gain over one number':>28}{'over the best one here':>28}")
        for rule, of in rows.items():
            one, own = ("{:+.1%} ({:+.1%} to {:+.1%})".format(*of[i][g]) for g in granularities.GAINS)
            say(f"{rule:36}{of[i]['parameter']:9.3g}{of[i]['score']:8.1%}{one:>28}{own:>28}")
        say(f"{'each picture at its best':45}{rows[granularities.FIXED][i]['ceiling']:8.1%}")
    if options.out:
        _write_json(options.out, rows)
    return 0


def _over_scenes(
    study: Callable[[range], Iterator], settings: Settings, options: argparse.Namespace, *, each: int = 1
) -> dict:
    """The rows of a study that takes `each` drawn scenes at a time.

    They are written down after each time, with the first and the last seed so far.
    """
    seeds = range(options.first_seed, options.first_seed + each * options.scenes)
    for done, rows in enumerate(tqdm(study(seeds), total=options.scenes, leave=False, disable=None), 1):
        result = {"seeds": [seeds[0], seeds[each * done - 1]], "k": settings.num_segments, "rows": rows}
        if options.out:
            _write_json(options.out, result)
    return rows


def benchmark(options: argparse.Namespace) -> int:
    """Times the published procedure, the exact engine and the presets on a drawn scene."""
    if options.model == SD_SIZE:
        pipe = benchmarks.stable_diffusion_sized()
        pipe.to(options.device or pipe.device)
        settings = settings_of(pipe, options)
    else:
        pipe, settings = open_model(options)
    device, side, k = pipe.unet.device, pipe.native_side, settings.num_segments
    picture = Image.fromarray(draw_scene(benchmarks.SEED, side).image)
    say(f"{options.model}, {side} x {side} pixels, k = {k}, {device}")
    say(
        f"{'':14}{'dtype':>10}{'seconds':>10}{'x faster':>9}{'rows':>6}{'decodes':>8}{'TFLOP':>8}{'peak':>6}"
        f"{'GiB':>6}{'labels':>8}"
    )
    measured, speeds, rows = [], {}, []  # the first one measured is the published procedure
    for m in benchmarks.compare(pipe, picture, k, whole=options.model != SD_SIZE, limit=options.limit):
        measured.append(m)
        if m.dtype not in speeds:
            speeds[m.dtype] = benchmarks.matmul_speed(device, m.dtype) / 1e12
        rows.append(benchmarks.row(m, measured[0], speeds[m.dtype]))
        say(_line(rows[-1]))
    told = ", ".join(f"{str(dtype).removeprefix('torch.')} {speed:.2f} TFLOP/s" for dtype, speed in speeds.items())
    say(f"peak: share of a matrix multiply's speed that the perturbed steps reach: {told}")
    if any(row["extrapolated"] for row in rows):
        say("* not run to the end, but extrapolated from the calls that were made")
    result = {"model": options.model, "k": k, "side": side, "device": str(device), "runs": rows}
    if options.out:
        _write_json(options.out, result)  # now, as the figure takes a while
    if options.figure:
        result["growth"] = benchmarks.growth(pipe, picture, (10, 5, 20, 40), (256, 512, 1024), options.limit)
        if options.out:
            _write_json(options.out, result)
        benchmarks.figure(result["growth"], side).savefig(options.figure, dpi=150)
    return 0


def _line(row: Mapping) -> str:
    seconds = f"{row['seconds']:.2f}{'*' if row['extrapolated'] else ' '}"
    equal = "" if row["equal_labels"] is None else f"{row['equal_labels']:.2%}"
    return (
        f"{row['name']:14}{row['dtype']:>10}{seconds:>10}{row['times_faster']:9.1f}{row['rows']:6}{row['decodes']:8}"
        f"{row['tflop']:8.2f}{row['share_of_matmul_peak']:6.0%}{row['peak_memory_gib']:6.1f}{equal:>8}"
    )


def _write_json(file: Path, value: Mapping) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n")
