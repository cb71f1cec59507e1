"""The command `segment`: its options, and what it prints."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from ..filenames import printable
from ..imagetext import MAP, Clip, load_image_text
from ..loading import MINIATURE
from ..options import add_dtype, add_model, add_settings, open_folder, open_model, words_of
from ..pipeline import EmerDiffPipeline
from ..processes import processes
from ..progress import Progress
from ..terminal import say
from . import folder
from .formats import FORMATS
from .named import Namer
from .pictures import Found, Source, find, identify
from .run import ALL, Share, Wanted, described, finish, networks_digest, run


def add(commands) -> None:
    """Adds the command to the subparsers of an `ArgumentParser`; it sets `command`, the function that runs it."""
    parser = commands.add_parser("segment", help="segment pictures: label PNGs, or a dataset in other tools' formats")
    asked = "a picture, a folder (with all below it), or @LIST: a file that names one or the other on each line"
    parser.add_argument("pictures", nargs="+", metavar="PATH", help=asked)
    place = "folder for the results: a new one, or one to be continued with the same settings"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=place)
    formats = "; ".join(f"{name}: {one.what}" for name, one in FORMATS.items())
    parser.add_argument("--format", nargs="+", default=["png"], choices=FORMATS, help=f"default: png. {formats}")
    void = "segments with a mean confidence below this, 0 to 1, become void, 255 (default: 0)"
    parser.add_argument("--min-confidence", type=float, default=0.0, metavar="X", help=void)
    part = "the Ith of N shares of the pictures, for as many jobs with one --out; `accelerate launch` shares by itself"
    parser.add_argument("--shard", type=shard, default=ALL, metavar="I/N", help=part)
    naming = parser.add_argument_group("names")
    told = 'words between commas, such as "sky,tree,sofa|couch", or a text file of them: names for the segments'
    naming.add_argument("--words", type=words_of, metavar="WORDS", help=told)
    by = f"what tells names: {MINIATURE!r} (default), the Hub id or folder of a CLIP, or a map of one picture, an .npz"
    naming.add_argument("--name-model", metavar="MODEL", help=by)
    naming.add_argument("--merge-names", action="store_true", help="make one segment of all that have the same name")
    add_model(parser)
    add_dtype(parser)
    add_settings(parser)
    parser.set_defaults(command=segment)


def shard(text: str) -> Share:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, as in 1/4, not {text!r}")
    return Share(int(found[1]) - 1, int(found[2]))


def segment(options: argparse.Namespace) -> int:
    """Segments this process's share of the pictures; returns 1 if one failed, and 0 otherwise."""
    found, state = find(options.pictures, options.out), processes()
    _check_names(options, len(found))
    pipe, settings = open_model(options, device=state.device if state.num_processes > 1 else None)
    wanted = Wanted(settings, tuple(dict.fromkeys(options.format)), options.min_confidence)
    if options.words:
        model = load_image_text(options.name_model or MINIATURE, device=pipe.unet.device)
        namer = Namer(options.words, model, options.merge_names)
        wanted = replace(wanted, classes=namer.classes, name=namer, names=_described(options, namer))
    share = options.shard.split(state.process_index, state.num_processes)
    status = segment_all(pipe, wanted, found, options.out, share)
    state.wait_for_everyone()
    return status


def _check_names(options: argparse.Namespace, pictures: int) -> None:
    """Before anything is loaded."""
    if not options.words and (given := [name for name in ("name_model", "merge_names") if getattr(options, name)]):
        raise ValueError(f"--{given[0].replace('_', '-')} needs --words: the words to choose names from")
    if str(options.name_model).endswith(MAP) and pictures > 1:
        raise ValueError(f"{options.name_model} is a map of one picture, but there are {pictures} pictures")


def _described(options: argparse.Namespace, namer: Namer) -> dict:
    """What names depend on, beside the classes."""
    told = {"words": str(namer.words), "name_model": options.name_model or MINIATURE, "merge_names": namer.merged}
    if isinstance(namer.model, Clip):
        told["name_weights"] = networks_digest({"clip": namer.model.clip})
    return told


def segment_all(pipe: EmerDiffPipeline, wanted: Wanted, found: Sequence[Found], out: Path, share: Share = ALL) -> int:
    """Segments a share of the pictures, reports each, and writes the results to the folder `out`.

    Returns 1 if a picture failed, and 0 otherwise.
    """
    open_folder(out)
    folder.claim(out, described(pipe, wanted))
    sources = identify(found, folder.entries(out))
    own, failed = [source for source in share.of(sources) if not source.twin], 0
    for source in share.of(sources):
        if source.twin:
            say(f"{source.path}: has the same content as {source.twin}, whose result stands for both", file=sys.stderr)
    with _Bars(sum(not source.twin for source in sources), out) as bars:
        for outcome in run(pipe, wanted, sources, out, share, bars.show):
            bars.count()
            path = outcome.source.path
            say(*(f"{path}: {told}" for told in (*outcome.notes, outcome.fault) if told), file=sys.stderr)
            if outcome.fault:
                failed += 1
            else:
                say(f"{path} -> {out / outcome.source.stem}")
    if len(own) > 1:
        say(f"{len(own) - failed} of {len(own)} pictures segmented, {failed} failed")
    if waiting := finish(wanted, sources, out):
        say(f"{waiting} pictures of other shares are still to come; then the files about all pictures are written")
    return 1 if failed else 0


class _Bars:
    """Two progress bars: pictures of all processes, an hour; and the network's rows for one picture."""

    def __init__(self, total: int, out: Path) -> None:
        self.out, done = out, folder.number_done(out)
        self.pictures = _Hourly(total=max(total, done), initial=done, disable=None if total > 1 else True)
        self.rows = tqdm(unit="row", leave=False, disable=None)

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_) -> None:
        self.rows.close()
        self.pictures.close()

    def show(self, source: Source, event: Progress) -> None:
        if event.done < self.rows.n:
            self.rows.reset()
        self.rows.desc, self.rows.total, self.rows.n = f"{printable(source.path.name)}: ", event.total, event.done
        self.rows.refresh()

    def count(self) -> None:
        self.pictures.update(folder.number_done(self.out) - self.pictures.n)


class _Hourly(tqdm):
    """Counts pictures an hour, on average since the beginning."""

    def __init__(self, **options) -> None:
        shown = "{n_fmt} of {total_fmt} pictures |{bar}| {hourly} an hour, {remaining} left"
        super().__init__(bar_format=shown, smoothing=0, leave=False, **options)

    @property
    def format_dict(self) -> dict:
        known = super().format_dict
        hours = known["elapsed"] / 3600
        return known | {"hourly": f"{(known['n'] - known['initial']) / hours:,.0f}" if hours else "?"}
