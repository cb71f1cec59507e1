"""The options that commands share, and the checks of their values."""

import argparse
import os
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from .errors import in_a_line
from .loading import MINIATURE, load
from .naming import Words
from .pipeline import EmerDiffPipeline
from .settings import AUTO, FINE, PRESETS, Settings

DTYPES = ("float32", "bfloat16", "float16")
FIGURES = (".png", ".svg", ".pdf")
OTHERWISE = {"num_segments": f", or {AUTO}: as many as differ enough, at most {FINE}"}  # beside numbers
SETTINGS = ("preset", *(f.name for f in fields(Settings)))


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=MINIATURE, help=f"{MINIATURE!r} (default), a Hub id or a folder")
    parser.add_argument("--device", help="cuda, mps or cpu (default: the first of these that is available)")
    parser.add_argument("--autoencoder", metavar="MODEL", help="a small one to use instead: Hub id or folder")


def add_dtype(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dtype", type=dtype, help=f"{', '.join(DTYPES)} (default: whichever suits the device)")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each field of `Settings`, whose values the class itself checks."""
    group = parser.add_argument_group("settings (default: those of the model)")
    group.add_argument("--preset", choices=PRESETS, default=argparse.SUPPRESS, help="what these settings then change")
    for f in fields(Settings):
        flag = "--" + f.name.replace("_", "-")
        if isinstance(f.default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS)
        else:
            allowed = "{} to {}".format(*Settings.range_of(f.name)) + OTHERWISE.get(f.name, "")
            group.add_argument(flag, type=number, default=argparse.SUPPRESS, metavar="N", help=allowed)


def open_model(options: argparse.Namespace, *, device: torch.device | None = None) -> tuple[EmerDiffPipeline, Settings]:
    """The model and the settings that the options ask for; `device` is used unless they name one."""
    pipe = load(
        options.model,
        device=options.device or device,
        dtype=getattr(options, "dtype", None),
        autoencoder=options.autoencoder,
    )
    return pipe, settings_of(pipe, options)


def settings_of(pipe: EmerDiffPipeline, options: argparse.Namespace) -> Settings:
    return pipe.settings(**{name: getattr(options, name) for name in SETTINGS if name in options})


def open_folder(folder: Path) -> None:
    """Makes the folder if it is missing, and raises an error if nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--out must be a folder, but {folder} is a file or lies below one") from error
    with TemporaryDirectory(prefix=".emerdiff-", dir=folder):
        pass


# ---------------------------------------------------------------- values


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)


def output_file(text: str) -> Path:
    """A file to be written after a long run; whether that is possible is tried beforehand."""
    file = Path(text)
    try:
        if not file.exists():
            file.open("xb").close()
            file.unlink()
        elif not file.is_fifo():  # opening one could wait for a reader
            file.open("ab").close()
    except OSError as error:
        reason = "its folder does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {reason}") from error
    return file


def figure_file(text: str) -> Path:
    if Path(text).suffix.lower() not in FIGURES:
        raise argparse.ArgumentTypeError(f"must end in {', '.join(FIGURES)}, not {text!r}")
    return output_file(text)


def words_of(text: str) -> Words:
    """Words to name segments by, between commas, or in a UTF-8 text file between commas or line breaks."""
    try:
        return Words.of(Path(text).read_text(encoding="utf-8-sig") if os.path.isfile(text) else text)
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a text file in UTF-8") from error
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(in_a_line(error)) from error


def dtype(text: str) -> torch.dtype:
    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(DTYPES)}, not {text!r}")
    return getattr(torch, text)


def number(text: str) -> int | float | str:
    """An int if possible, else a float; failing both, the text itself, which `Settings` refuses in its own words."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def fixed_number(text: str) -> int | float | str:
    """A `number` where studies need the same one for each picture."""
    if text == AUTO:
        raise argparse.ArgumentTypeError(f"must be a number here, not {AUTO!r}")
    return number(text)
