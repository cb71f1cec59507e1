"""The command line, `emerdiff` or `python -m emerdiff`: `segment`, and the commands of the studies."""

import argparse
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from . import __version__
from .dataset import commands as datasets
from .errors import in_a_line
from .inspecting import described, inspect
from .loading import MINIATURE, best_device, fast_dtype, without_weights
from .options import add_dtype
from .studies import commands as studies
from .terminal import Unfailing, say


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
    # Shells expand *.png, and a picture whose name begins with "-" is not an option, nor one with "@" a list.
    words = [f"./{word}" if word[:1] in "-@" and "." in word and os.path.isfile(word) else word for word in arguments]
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
    datasets.add(commands)
    told = "say what a checkpoint is and what a run with it needs, or why it is refused; no weights are read"
    inspecting = commands.add_parser("inspect", help=told)
    inspecting.add_argument("model", metavar="MODEL", help=f"{MINIATURE!r}, a Hub id, a folder or a single file")
    add_dtype(inspecting)
    inspecting.set_defaults(command=_inspect)
    studies.add(commands)
    return parser


def _inspect(options: argparse.Namespace) -> int:
    """Prints what a checkpoint is and needs; a refusal is an error, which `main` prints."""
    pipe, dtype = without_weights(options.model), options.dtype or fast_dtype(best_device())
    say(f"{options.model}, in {str(dtype).removeprefix('torch.')}", *described(inspect(pipe, dtype)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
