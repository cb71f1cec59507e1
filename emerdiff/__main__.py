"""The command line: `python -m emerdiff segment IMAGE... --out DIR`, `evaluate`, `sweep`, `ablate` and `benchmark`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

import torch
from PIL import Image
from tqdm import tqdm

from .filenames import distinct_stems, printable
from .loading import MINIATURE, load
from .matching import agreement
from .miniature.scenes import draw_scene
from .pipeline import EmerDiffPipeline, Progress
from .settings import PRESETS, Settings
from .studies import ablation as ablating
from .studies import benchmark as bench
from .studies import sweep as sweeping
from .studies.competitors import METHODS
from .studies.datasets import open_dataset
from .studies.evaluation import Evaluation, markdown, processes, run, summarize
from .studies.evaluation import figure as scores_figure
from .writing import ENDINGS, Identity, check_place, identity, write

SD_SIZE = "sd-size"
FIGURES = (".png", ".svg", ".pdf")
SETTINGS = ("preset", *(f.name for f in fields(Settings)))


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 1 where anything failed."""
    with redirect_stdout(_Unheard(sys.stdout)), redirect_stderr(_Unheard(sys.stderr)):
        options = _options(sys.argv[1:] if arguments is None else arguments)
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
            _say(f"error: {_reason(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            _say("stopped", file=sys.stderr)
            return 130  # as shells have it


def _options(arguments: list[str]) -> argparse.Namespace:
    # Shells write *.png out: a picture whose name begins with "-" is no option.
    words = [f"./{word}" if word[:1] == "-" and "." in word and os.path.isfile(word) else word for word in arguments]
    options = (parser := _parser()).parse_args(words)
    if "figure" in options and options.figure and options.figure == options.out:
        parser.error(f"--out and --figure cannot be one file, {str(options.out)!r}")
    return options


def segment(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Segments each picture; one that fails, in whatever way, is reported, and the others go on."""
    _open_folder(options.out)
    given = {(os.path.realpath(path.parent), path.name): path for path in options.images}  # each counts once
    paths, failed = list(given.values()), 0
    pictures = {found for path in paths if (found := identity(path))}
    for path, stem in zip(paths, distinct_stems([path.name for path in paths]), strict=True):
        try:
            _segment(pipe, settings, path, options.out, stem, pictures)
        except Exception as error:  # whatever it is, it is this picture's
            failed += 1
            _say(f"{path}: {_reason(error)}", file=sys.stderr)
    if len(paths) > 1:
        _say(f"{len(paths) - failed} of {len(paths)} pictures segmented, {failed} failed")
    return 1 if failed else 0


def _open_folder(folder: Path) -> None:
    """Makes a folder unless it is there; an error where nothing could be written to it after a long run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--out must be a folder: {folder} is a file, or below one") from error
    with TemporaryDirectory(prefix=".emerdiff-", dir=folder):
        pass


def _segment(
    pipe: EmerDiffPipeline, settings: Settings, path: Path, out: Path, stem: str, pictures: Collection[Identity]
) -> None:
    if path.exists() and not path.is_file():
        raise ValueError("this is a folder or a device, not a picture")
    check_place(out, stem, pictures)  # before the network runs for nothing
    with tqdm(desc=printable(path.name), unit="row", leave=False, disable=None) as bar:
        result = pipe(path, settings, progress=lambda event: _show(bar, event))
    for note in result.notes:
        _say(f"{path}: {note}", file=sys.stderr)
    write(result, out, stem, picture=printable(path.name), pictures=pictures)
    _say(f"{path} -> {out / stem}{', '.join(ENDINGS)}")


def _show(bar: tqdm, event: Progress) -> None:
    bar.total, bar.n = event.total, event.done
    bar.refresh()


def _reason(error: Exception) -> str:
    """An error as the end of a line; with its type where it is none that was thought of."""
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        words = error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in words:
        return "there is not enough memory: a smaller image_area or fewer num_segments need less"
    return words if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {words}"


class _Unheard:
    """Standard output or error that no write stops, whatever becomes of the reader and whatever the text."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115  it may be closed from the beginning
        if hasattr(self.stream, "reconfigure"):
            self.stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._let_be():
            self.stream.write(text)
            self.stream.flush()  # what is left for the program's end would fail there
        return len(text)

    def flush(self) -> None:
        with self._let_be():
            self.stream.flush()

    @contextmanager
    def _let_be(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # a pipe without a reader, a full disk: the rest goes nowhere, and not into an error at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def _say(*lines: str, file: TextIO | None = None) -> None:
    """Prints lines above the bars, and as lines whatever is in them."""
    for line in lines:
        tqdm.write(printable(line), file=file or sys.stdout)


def evaluate(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Scores EmerDiff and its competitors on a dataset with truth; goes on where an earlier run ended."""
    evaluation = Evaluation(options.dataset, options.train, options.model, settings, tuple(options.methods))
    dataset, train = (source and open_dataset(source, pipe.native_side) for source in (options.dataset, options.train))
    _open_folder(options.out)
    shown = processes().is_main_process
    with tqdm(unit="picture", leave=False, disable=None if shown else True) as bar:
        for bar.n, bar.total in run(pipe, evaluation, dataset, train, options.out):
            bar.refresh()
    if not shown:
        return 0
    summary = summarize(options.out)
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    (options.out / "summary.md").write_text(markdown(summary) + "\n", encoding="utf-8")
    scores_figure(summary).savefig(options.out / "summary.png", dpi=150)
    _say(*(f"{picture}: {error}" for picture, error in summary["errors"].items()), file=sys.stderr)
    _say(f"{summary['pictures']} pictures of {options.dataset}, {settings}", *markdown(summary).splitlines())
    return 1 if summary["errors"] else 0


def _over_scenes(study: Callable, settings: Settings, options: argparse.Namespace) -> dict:
    """The rows of a study of drawn scenes after the last; after each they are written down."""
    seeds = range(options.first_seed, options.first_seed + options.scenes)
    for rows in tqdm(study(seeds), unit="scene", total=len(seeds), leave=False, disable=None):
        result = {"seeds": [seeds[0], seeds[-1]], "k": settings.num_segments, "rows": rows}
        if options.out:
            _write_json(options.out, result)
    return rows


def _write_json(file: Path, value: dict) -> None:
    file.write_text(json.dumps(value, indent=1) + "\n")


def sweep(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Scores variants of the settings on drawn scenes, with their cost and agreement with the exact run."""
    rows = _over_scenes(lambda seeds: sweeping.sweep(pipe, seeds, settings.num_segments), settings, options)
    _say(f"{'':34}{'seconds':>8}{'agreement':>10}{'mIoU':>8}{'Hungarian':>11}{'boundary F':>11}")
    for name, row in rows.items():
        agreed, *scores = (f"{row[score]:.1%}" for score in ("agreement", "miou", "hungarian", "boundary_f"))
        _say(f"{name:34}{row['seconds']:8.2f}{agreed:>10}{scores[0]:>8}{scores[1]:>11}{scores[2]:>11}")
    if options.figure:
        sweeping.figure(rows).savefig(options.figure, dpi=120)
    return 0


def ablate(pipe: EmerDiffPipeline, settings: Settings, options: argparse.Namespace) -> int:
    """Scores the model's settings with one of them varied at a time, as the paper does."""
    rows = _over_scenes(lambda seeds: ablating.ablate(pipe, seeds, settings), settings, options)
    _say(f"{'':22}{'value':>8}{'mIoU':>8}{'naive':>8}{'boundary F':>12}{'naive':>8}")
    for name, values in rows.items():
        for row in values:
            scores = (f"{row[score]:.1%}" for score in ("miou", "naive_miou", "boundary_f", "naive_boundary_f"))
            _say("{:22}{:>8}{:>8}{:>8}{:>12}{:>8}".format(name, str(row["value"]), *scores))
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
    _say(f"{options.model}, {side} x {side} pixels, k = {k}, {device}")
    _say(
        f"{'':14}{'dtype':>10}{'seconds':>10}{'x faster':>9}{'rows':>6}{'decodes':>8}{'TFLOP':>8}{'peak':>6}"
        f"{'GiB':>6}{'labels':>8}"
    )
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
        _say(
            f"{m.name:14}{row['dtype']:>10}{seconds:>10}{row['times_faster']:9.1f}{m.rows:6}{m.decodes:8}"
            f"{m.tflop:8.2f}{row['share_of_matmul_peak']:6.0%}{m.peak_memory:6.1f}{equal:>8}"
        )
    told = ", ".join(f"{str(dtype).removeprefix('torch.')} {speed:.2f} TFLOP/s" for dtype, speed in speeds.items())
    _say(f"peak: share, in the modulated steps, of the speed of a matrix multiply: {told}")
    if any(row["extrapolated"] for row in rows):
        _say("* not run to the end: multiplied out from the calls that were made")
    result = {"model": options.model, "k": k, "side": side, "device": str(device), "runs": rows}
    if options.out:
        _write_json(options.out, result)  # now, as what follows takes a while
    if options.figure:
        result["growth"] = bench.growth(pipe, picture, (10, 5, 20, 40), (256, 512, 1024), options.limit)
        if options.out:
            _write_json(options.out, result)
        bench.figure(result["growth"], side).savefig(options.figure, dpi=150)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m emerdiff", description="Segment pictures with a text-to-image diffusion model."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    segmenting = commands.add_parser("segment", help="write label PNG, overlay and JSON of each picture")
    segmenting.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    place = "folder to write to, made if missing; only what this command wrote there is overwritten"
    segmenting.add_argument("--out", type=Path, required=True, metavar="DIR", help=place)
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
        command.add_argument("--scenes", type=_count, default=20, help="how many (default 20)")
        command.add_argument("--first-seed", type=int, default=700_000, help="of the first (default 700000)")
        command.add_argument("--out", type=_file, metavar="FILE", help="JSON of the table, written after each scene")
        command.add_argument("--figure", type=_figure, metavar="FILE", help="PNG, SVG or PDF of the scores")
        command.add_argument("--num-segments", type=_number, default=12, metavar="N", help="default 12")
    ablations.add_argument("--preset", choices=PRESETS, default="exact", help="what is varied (default exact)")
    timing = commands.add_parser("benchmark", help="time the presets against the published procedure")
    timing.add_argument("--out", type=_file, metavar="FILE", help="JSON of the table, and of the figure's points")
    timing.add_argument("--figure", type=_figure, metavar="FILE", help="PNG, SVG or PDF: how time grows; takes a while")
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


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def _file(text: str) -> Path:
    """Where a file will be written after a long run; tried before it."""
    file = Path(text)
    try:
        if not file.exists():
            file.open("xb").close()
            file.unlink()
        elif not file.is_fifo():  # or opening it might wait for a reader
            file.open("ab").close()
    except OSError as error:
        reason = "its folder is not there" if isinstance(error, FileNotFoundError) else error.strerror
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {reason}") from error
    return file


def _figure(text: str) -> Path:
    if Path(text).suffix.lower() not in FIGURES:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(FIGURES)}, not {text!r}")
    return _file(text)


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
