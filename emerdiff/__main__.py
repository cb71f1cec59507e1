"""The command line: `python -m emerdiff segment IMAGE... --out DIR`, `evaluate`, `sweep`, `ablate` and `benchmark`."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from . import ablation as ablating
from . import benchmark as bench
from . import sweep as sweeping
from .competitors import METHODS
from .datasets import open_dataset
from .drawing import indexed_png, overlay, palette
from .evaluation import Evaluation, markdown, processes, run, summarize
from .evaluation import figure as scores_figure
from .loading import MINIATURE, load
from .miniature.scenes import draw_scene
from .pipeline import EmerDiffPipeline, Progress
from .scoring import agreement
from .segmentation import Segmentation
from .settings import PRESETS, Settings

SD_SIZE = "sd-size"
SETTINGS = ("preset", *(f.name for f in fields(Settings)))


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 1 where anything failed."""
    options = _parser().parse_args(arguments)
    try:
        device = options.device
        if options.command is evaluate and processes().num_processes > 1:
            device = device or processes().device  # each process has its own
        pipe = (
            bench.stable_diffusion_sized()
            if options.model == SD_SIZE
            else load(options.model, device=device, dtype=options.dtype, autoencoder=options.autoencoder)
        )
        chosen = {name: getattr(options, name) for name in SETTINGS if name in options}
        return options.command(pipe, pipe.settings(**chosen), options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def segment(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Segments each picture; one that fails is reported, and the others go on."""
    options.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    for path, stem in zip(options.images, _stems(options.images), strict=True):
        with tqdm(desc=path.name, unit="row", leave=False) as bar:
            try:
                result = pipe(path, settings, progress=lambda event, bar=bar: _show(bar, event))
            except ValueError as error:
                failures += 1
                tqdm.write(f"{path}: {error}", file=sys.stderr)
                continue
        for note in result.notes:
            tqdm.write(f"{path}: {note}", file=sys.stderr)
        _write(result, options.out / stem)
        tqdm.write(f"{path} -> {options.out / stem}_labels.png, _overlay.png, .json", file=sys.stdout)
    return 1 if failures else 0


def _show(bar: tqdm, event: Progress) -> None:
    bar.total, bar.n = event.total, event.done
    bar.refresh()


def _stems(paths: list[Path]) -> list[str]:
    """File names without endings, made distinct so that a.png and a.jpg do not overwrite each other."""
    names = [path.stem for path in paths]
    unique = [path.stem if names.count(path.stem) == 1 else path.name.replace(".", "_") for path in paths]
    return [name if unique.count(name) == 1 else f"{i:03}_{name}" for i, name in enumerate(unique)]


def _write(result: Segmentation, stem: Path) -> None:
    k = result.settings.num_segments
    indexed_png(result.labels_at_original_size, palette(k)).save(f"{stem}_labels.png")
    Image.fromarray(overlay(result.image, result.labels, palette(k))).save(f"{stem}_overlay.png")
    Path(f"{stem}.json").write_text(json.dumps(result.summary(), indent=1) + "\n")


def evaluate(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Scores EmerDiff and its competitors on a dataset with truth; goes on where an earlier run ended."""
    evaluation = Evaluation(options.dataset, options.train, options.model, settings, tuple(options.methods))
    dataset, train = (source and open_dataset(source, pipe.native_side) for source in (options.dataset, options.train))
    shown = processes().is_main_process
    with tqdm(unit="picture", leave=False, disable=not shown) as bar:
        for bar.n, bar.total in run(pipe, evaluation, dataset, train, options.out):
            bar.refresh()
    if not shown:
        return 0
    summary = summarize(options.out)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (options.out / "summary.md").write_text(markdown(summary) + "\n")
    scores_figure(summary).savefig(options.out / "summary.png", dpi=150)
    for picture, error in summary["errors"].items():
        print(f"{picture}: {error}", file=sys.stderr)
    print(f"{summary['pictures']} pictures of {options.dataset}, {settings}")
    print(markdown(summary))
    return 1 if summary["errors"] else 0


def _over_scenes(study: Callable, settings: Settings, options: argparse.Namespace) -> dict:
    """The rows of a study of drawn scenes after the last; after each they are written down."""
    seeds = range(options.first_seed, options.first_seed + options.scenes)
    for rows in tqdm(study(seeds), unit="scene", total=len(seeds), leave=False):
        result = {"seeds": [seeds[0], seeds[-1]], "k": settings.num_segments, "rows": rows}
        if options.out:
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    return rows


def sweep(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Scores variants of the settings on drawn scenes, with their cost and agreement with the exact run."""
    rows = _over_scenes(lambda seeds: sweeping.sweep(pipe, seeds, settings.num_segments), settings, options)
    print(f"{'':34}{'seconds':>8}{'agreement':>10}{'mIoU':>8}{'Hungarian':>11}{'boundary F':>11}")
    for name, row in rows.items():
        agreed, *scores = (f"{row[score]:.1%}" for score in ("agreement", "miou", "hungarian", "boundary_f"))
        print(f"{name:34}{row['seconds']:8.2f}{agreed:>10}{scores[0]:>8}{scores[1]:>11}{scores[2]:>11}")
    if options.figure:
        sweeping.figure(rows).savefig(options.figure, dpi=120)
    return 0


def ablate(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Scores the model's settings with one of them varied at a time, as the paper does."""
    rows = _over_scenes(lambda seeds: ablating.ablate(pipe, seeds, settings), settings, options)
    print(f"{'':22}{'value':>8}{'mIoU':>8}{'naive':>8}{'boundary F':>12}{'naive':>8}")
    for name, values in rows.items():
        for row in values:
            scores = (f"{row[score]:.1%}" for score in ("miou", "naive_miou", "boundary_f", "naive_boundary_f"))
            print("{:22}{:>8}{:>8}{:>8}{:>12}{:>8}".format(name, str(row["value"]), *scores))
    if options.figure:
        own = vars(settings) | {"modulation layer": 2}
        ablating.figure(rows, own).savefig(options.figure, dpi=120)
    return 0


def benchmark(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Times the published procedure, the exact engine and the presets on a drawn scene."""
    device = torch.device(options.device or pipe.unet.device)
    pipe.to(device)
    side, k = pipe.native_side, settings.num_segments
    picture = Image.fromarray(draw_scene(options.first_seed, side).image)
    print(f"{options.model}, {side} x {side} pixels, k = {k}, {device}")
    print(f"{'':14}{'dtype':>10}{'seconds':>10}{'x faster':>9}{'rows':>6}{'decodes':>8}{'TFLOP':>8}{'peak':>6}", end="")
    print(f"{'GiB':>6}{'labels':>8}")
    rows, speeds, published = [], {}, None
    for m in bench.compare(pipe, picture, k, whole=options.model != SD_SIZE, limit=options.limit):
        published = published or m  # the first
        if m.dtype not in speeds:
            speeds[m.dtype] = bench.matmul_speed(device, m.dtype) / 1e12
        row = {
            "name": m.name,
            "dtype": str(m.dtype).removeprefix("torch."),
            "seconds": m.seconds,
            "extrapolated": m.extrapolated,
            "times_faster": published.seconds / m.seconds,
            "rows": m.rows,
            "decodes": m.decodes,
            "tflop": m.tflop,
            "share_of_matmul_peak": m.modulated_tflop / m.modulated_seconds / speeds[m.dtype],
            "peak_memory_gib": m.peak_memory,
            "equal_labels": None
            if m.labels is None or published.labels is None
            else agreement(m.labels, published.labels),
        }
        rows.append(row)
        seconds = f"{m.seconds:.2f}{'*' if m.extrapolated else ' '}"
        equal = "" if row["equal_labels"] is None else f"{row['equal_labels']:.2%}"
        print(
            f"{m.name:14}{row['dtype']:>10}{seconds:>10}{row['times_faster']:9.1f}{m.rows:6}{m.decodes:8}"
            f"{m.tflop:8.2f}{row['share_of_matmul_peak']:6.0%}{m.peak_memory:6.1f}{equal:>8}",
            flush=True,
        )
    told = ", ".join(f"{str(dtype).removeprefix('torch.')} {speed:.2f} TFLOP/s" for dtype, speed in speeds.items())
    print(f"peak: share, in the modulated steps, of the speed of a matrix multiply: {told}")
    if any(row["extrapolated"] for row in rows):
        print("* not run to the end: multiplied out from the calls that were made")
    result = {"model": options.model, "k": k, "side": side, "device": str(device), "runs": rows}
    if options.figure:
        result["growth"] = bench.growth(pipe, picture, (10, 5, 20, 40), (256, 512, 1024), options.limit)
        bench.figure(result["growth"], side).savefig(options.figure, dpi=150)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m emerdiff", description="Segment pictures with a text-to-image diffusion model."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    segmenting = commands.add_parser("segment", help="write label PNG, overlay and JSON of each picture")
    segmenting.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    segmenting.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to write to; made if missing"
    )
    segmenting.set_defaults(command=segment)
    scoring = commands.add_parser("evaluate", help="score EmerDiff and its competitors on pictures with truth")
    scoring.add_argument(
        "dataset",
        metavar="DATASET",
        help="scenes:FIRST..LAST, or a kind of them as room:FIRST..LAST, or a folder of images/ and labels/",
    )
    scoring.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to, or to go on in")
    scoring.add_argument("--train", metavar="DATASET", help="where the modified protocol learns its concepts")
    scoring.add_argument("--methods", nargs="+", default=list(METHODS), metavar="NAME", help=f"of {', '.join(METHODS)}")
    scoring.set_defaults(command=evaluate)
    sweeps = commands.add_parser("sweep", help="what presets and their parts cost and lose, on drawn scenes")
    sweeps.set_defaults(command=sweep)
    ablations = commands.add_parser("ablate", help="the paper's ablations, one setting at a time, on drawn scenes")
    ablations.set_defaults(command=ablate)
    for command in (sweeps, ablations):
        command.add_argument("--scenes", type=int, default=20, help="how many (default 20)")
        command.add_argument("--first-seed", type=int, default=700_000, help="of the first (default 700000)")
        command.add_argument("--out", type=Path, metavar="FILE", help="JSON of the table, written after each scene")
        command.add_argument("--figure", type=Path, metavar="FILE", help="PNG or SVG of the scores")
        command.add_argument("--num-segments", type=_number, default=12, metavar="N", help="default 12")
    ablations.add_argument("--preset", choices=PRESETS, default="exact", help="what is varied (default exact)")
    timing = commands.add_parser("benchmark", help="time the presets against the published procedure")
    timing.add_argument("--out", type=Path, metavar="FILE", help="JSON of the table, and of the figure's points")
    timing.add_argument("--figure", type=Path, metavar="FILE", help="PNG or SVG of how time grows; takes a while")
    timing.add_argument("--limit", type=float, default=120, help="seconds after which a run is extrapolated")
    timing.add_argument("--first-seed", type=int, default=600_000, help="of the drawn scene")
    timing.set_defaults(command=benchmark)
    for command in (segmenting, scoring, timing, sweeps, ablations):
        command.add_argument("--model", default=MINIATURE, help='"miniature" (default), a Hub id or a folder')
        command.add_argument("--device", help="cuda, mps or cpu; by default the first there is")
        command.add_argument("--autoencoder", metavar="MODEL", help="a small one: Hub id or folder")
    timing.set_defaults(dtype=None)  # it measures more than one
    for command in (segmenting, scoring, sweeps, ablations):
        command.add_argument(
            "--dtype", type=_dtype, help="float32, bfloat16 or float16; by default what suits the device"
        )
    for command in (segmenting, scoring):
        _add_settings(command.add_argument_group("settings (defaults: the model's own)"))
    timing.add_argument("--num-segments", type=_number, default=25, metavar="N", help="default 25")
    return parser


def _add_settings(group) -> None:
    """An option for each field of `Settings`; the class itself checks the values."""
    group.add_argument("--preset", choices=PRESETS, default=argparse.SUPPRESS, help="what the other settings begin as")
    for f in fields(Settings):
        flag = "--" + f.name.replace("_", "-")
        if f.type is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            low, high = Settings.range_of(f.name)
            group.add_argument(flag, type=_number, default=argparse.SUPPRESS, metavar="N", help=f"{low} to {high}")


def _dtype(text: str) -> torch.dtype:
    if text not in ("float32", "bfloat16", "float16"):
        raise argparse.ArgumentTypeError(f"must be float32, bfloat16 or float16, not {text!r}")
    return getattr(torch, text)


def _number(text: str) -> int | float | str:
    """An int where it is one, else a float; else the text itself, which `Settings` judges."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


if __name__ == "__main__":
    sys.exit(main())
