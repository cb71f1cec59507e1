"""Prints what commands report: lines without control sequences, on streams that never fail."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm import tqdm

from .filenames import printable


def say(*lines: str, file: TextIO | None = None) -> None:
    """Prints each text as one line above the progress bars, whatever it contains."""
    for line in lines:
        tqdm.write(printable(line), file=file or sys.stdout)


class Unfailing:
    """A stream for text that swallows every failure to write, such as a reader that has gone or a full disk."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115  Python has None for a closed one
        if hasattr(self.stream, "reconfigure"):
            self.stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        with self._unfailing():
            self.stream.write(text)
            self.stream.flush()  # anything left in the buffer would fail when the program ends
        return len(text)

    def flush(self) -> None:
        with self._unfailing():
            self.stream.flush()

    @contextmanager
    def _unfailing(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # from here on everything goes nowhere, so that nothing fails at the end either
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)
