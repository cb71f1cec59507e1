"""Tries out a running server: `python tests/check_server.py [URL or Space]`, by default http://127.0.0.1:7860.

Prints whether each check passed and how long it took; exits with 1 if one failed.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

PICTURES = [Path(__file__).parents[1] / "examples" / f"{name}.jpg" for name in ("street", "shore")]


def pixels(file: str) -> np.ndarray:
    return np.asarray(Image.open(file))


def visit(where: str, picture: Path) -> np.ndarray:
    """All endpoints, as one visitor; returns the labels of three segments."""
    client = Client(where, verbose=False)
    with Image.open(picture) as opened:
        size = opened.size[::-1]
    labels, summary = client.predict(handle_file(str(picture)), num_segments=8, preset="preview", api_name="/segment")
    assert pixels(labels).shape == size and summary["settings"]["num_segments"] == 8
    labels, summary = client.predict(3, api_name="/rescale_k")
    assert pixels(labels).shape == size and len(summary["segments"]) == 3
    before, after = client.predict("7,7 7,8", 10, api_name="/probe")
    assert pixels(before).shape == pixels(after).shape
    assert Path(client.predict(api_name="/export")).stat().st_size > 10_000
    return pixels(labels)


def bad(where: str) -> None:
    """A file that is not a picture is refused with a sentence."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(b"not a picture")
        file.flush()
        try:
            Client(where, verbose=False).predict(handle_file(file.name), api_name="/segment")
        except AppError as error:
            assert "not a picture" in str(error), error
            return
    raise AssertionError("a text file was segmented")


def main(where: str) -> int:
    alone = []
    checks = {
        "one visitor": lambda: alone.append(visit(where, PICTURES[0])),
        "two at once": lambda: both(where, alone[0]),
        "a bad picture": lambda: bad(where),
        "one visitor after that": lambda: visit(where, PICTURES[0]),
    }
    failed = 0
    for name, check in checks.items():
        began = time.perf_counter()
        try:
            check()
            said = "ok"
        except Exception as error:  # whatever it is, the other checks still run
            failed, said = 1, f"{type(error).__name__}: {error}"
        print(f"{name:24}{time.perf_counter() - began:7.1f} s  {said}")
    return failed


def both(where: str, alone: np.ndarray) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda picture: visit(where, picture), PICTURES)
    assert np.array_equal(first, alone), "a visitor's result depends on another's"
    assert not np.array_equal(first, second)


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["http://127.0.0.1:7860"])))
