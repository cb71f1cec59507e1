"""What the trainings' command lines have in common."""

import argparse
import logging
import os
from pathlib import Path

import torch

from .photographs import Photographs, find_photographs
from .pictures import FIRST_SEED


def new_parser(module: str, description: str, *, out: str, minutes: float) -> argparse.ArgumentParser:
    """A parser with the options of every training; `out` and `minutes` are defaults."""
    parser = argparse.ArgumentParser(f"python -m emerdiff.miniature.{module}", description=description)
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for checkpoint and result")
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="of training, earlier runs included; on a CPU, of processor time"
    )
    seeds = "first seed of scenes and noise; use a new one with --start (default: %(default)s)"
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help=seeds)
    parser.add_argument(
        "--photographs",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="folders or tars of pictures and captions: KEY.jpg, .png or .webp, and KEY.txt with a caption a line",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def prepared(parser: argparse.ArgumentParser, paths: list[Path] | None, share: float) -> Photographs:
    """Prepares log and precision, and finds the photographs; a path without any is the parser's error."""
    torch.set_float32_matmul_precision("high")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        found = find_photographs(paths, workers=os.cpu_count() or 1) if paths else ()
    except ValueError as error:
        parser.error(str(error))
    return Photographs(found, share)
