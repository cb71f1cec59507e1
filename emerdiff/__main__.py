"""The command line, `emerdiff` or `python -m emerdiff`: `segment`, and the commands of the studies."""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

from tqdm import tqdm

from . import __version__
from .errors import in_a_line
from .filenames import distinct_stems, printable
from .imagetext import MAP, load_image_text
from .inspecting import described, inspect
from .loading import MINIATURE, best_device, fast_dtype, without_weights
from .naming import Names, name_segments
from .options import add_dtype, add_model, add_settings, open_folder, open_model, words_of
from .pipeline import EmerDiffPipeline
from .progress import Progress
from .segmentation import Segmentation
from .settings import Settings
from .studies import commands as studies
from .terminal import Unfailing, say
from .writing import Identity, check_place, identity, write


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, or 1 if anything failed."""
    with redirect_stdout(Unfailing(sys.stdout)), redirect_stderr(Unfailing(sys.stderr)):
        options = _options(sys.argv[1:] if arguments is None else arguments)
        try:
            return options.command(options)
        except (OSError, ValueError) as error:
            say(f"error: {in_a_line(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            say("stopped", file=sys.stderr)
            return 130  # the shells' number for it


def _options(arguments: list[str]) -> argparse.Namespace:
    # Shells expand *.png, and a picture whose name begins with "-" is not an option.
    words = [f"./{word}" if word[:1] == "-" and "." in word and os.path.isfile(word) else word for word in arguments]
    options = (parser := _parser()).parse_args(words)
    if "figure" in options and options.figure and options.figure == options.out:
        parser.error(f"--out and --figure cannot be the same file, {str(options.out)!r}")
    return options


def _parser() -> argparse.ArgumentParser:
    program = "python -m emerdiff" if Path(sys.argv[0]).name == "__main__.py" else "emerdiff"
    description = "Segments pictures with a text-to-image diffusion model."
    parser = argparse.ArgumentParser(program, description=description)
    parser.add_argument("--version", action="version", version=f"emerdiff {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    segmenting = commands.add_parser("segment", help="write a label PNG, an overlay and a JSON file for each picture")
    segmenting.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    place = "folder for the results, made if missing; only files that this command wrote are overwritten"
    segmenting.add_argument("--out", type=Path, required=True, metavar="DIR", help=place)
    add_model(segmenting)
    add_dtype(segmenting)
    add_settings(segmenting)
    naming = segmenting.add_argument_group("names")
    told = 'words between commas, such as "sky,tree,sofa|couch", or a text file of them: names for the segments'
    naming.add_argument("--words", type=words_of, metavar="WORDS", help=f"{told}; a COCO file is then written as well")
    by = f"what tells names: {MINIATURE!r} (default), the Hub id or folder of a CLIP, or a map of one picture, an .npz"
    naming.add_argument("--name-model", metavar="MODEL", help=by)
    segmenting.set_defaults(command=_segment)
    told = "say what a checkpoint is and what a run with it needs, or why it is refused; no weights are read"
    inspecting = commands.add_parser("inspect", help=told)
    inspecting.add_argument("model", metavar="MODEL", help=f"{MINIATURE!r}, a Hub id, a folder or a single file")
    add_dtype(inspecting)
    inspecting.set_defaults(command=_inspect)
    studies.add(commands)
    return parser


def _segment(options: argparse.Namespace) -> int:
    if options.name_model and not options.words:
        raise ValueError("--name-model needs --words: the words to choose names from")
    if str(options.name_model).endswith(MAP) and len(options.images) > 1:
        raise ValueError(f"{options.name_model} is a map of one picture, but there are {len(options.images)} pictures")
    pipe, settings = open_model(options)
    model = load_image_text(options.name_model or MINIATURE, device=pipe.unet.device) if options.words else None
    name = partial(name_segments, words=options.words, model=model) if model else None
    return segment(pipe, settings, options.images, options.out, name)


def _inspect(options: argparse.Namespace) -> int:
    """Prints what a checkpoint is and needs; a refusal is an error, which `main` prints."""
    pipe, dtype = without_weights(options.model), options.dtype or fast_dtype(best_device())
    say(f"{options.model}, in {str(dtype).removeprefix('torch.')}", *described(inspect(pipe, dtype)))
    return 0


Name = Callable[[Segmentation], Names]


def segment(
    pipe: EmerDiffPipeline, settings: Settings, images: Sequence[Path], out: Path, name: Name | None = None
) -> int:
    """Writes the segments of each picture to the folder `out`; returns 1 if a picture failed, and 0 otherwise.

    `name`, if given, tells what they show. Whatever goes wrong with a picture is reported, and the others are still
    segmented.
    """
    open_folder(out)
    distinct = {(os.path.realpath(path.parent), path.name): path for path in images}
    paths, failed = list(distinct.values()), 0
    pictures = {found for path in paths if (found := identity(path))}
    for path, stem in zip(paths, distinct_stems([path.name for path in paths]), strict=True):
        try:
            _segment_one(pipe, settings, path, out, stem, pictures, name)
        except Exception as error:
            failed += 1
            say(f"{path}: {in_a_line(error)}", file=sys.stderr)
    if len(paths) > 1:
        say(f"{len(paths) - failed} of {len(paths)} pictures segmented, {failed} failed")
    return 1 if failed else 0


def _segment_one(
    pipe: EmerDiffPipeline,
    settings: Settings,
    path: Path,
    out: Path,
    stem: str,
    pictures: Collection[Identity],
    name: Name | None,
) -> None:
    if path.exists() and not path.is_file():
        raise ValueError("this is a folder or a device, not a picture")
    check_place(out, stem, pictures)  # before a run that would be in vain
    with tqdm(desc=printable(path.name), unit="row", leave=False, disable=None) as bar:
        result = pipe(path, settings, progress=lambda event: _show(bar, event))
    for note in result.notes:
        say(f"{path}: {note}", file=sys.stderr)
    names = name(result) if name else None
    endings = write(result, out, stem, picture=printable(path.name), pictures=pictures, names=names)
    say(f"{path} -> {out / stem}{', '.join(endings)}")
    if names:
        say(*(f"  {i}: {told}" for i in range(settings.num_segments) if (told := names.told(i))))


def _show(bar: tqdm, event: Progress) -> None:
    bar.total, bar.n = event.total, event.done
    bar.refresh()


if __name__ == "__main__":
    sys.exit(main())
