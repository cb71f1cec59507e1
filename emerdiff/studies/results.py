"""A folder of results that belongs to one evaluation, with a JSON line for each picture that is done.

An evaluation that was stopped can so be continued.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ..dataset.folder import visible
from ..errors import in_a_line

Task = tuple[dict, Callable[[], dict]]
"""How a line begins, which names the picture, and the work that gives the rest."""


def check_own(out: Path, mark: str) -> None:
    """`ValueError` if the folder `out` holds files, but not the one that tells that they are of the same command."""
    found = visible(out)
    if found and mark not in found:
        raise ValueError(f"{out} holds files from elsewhere, as {found[0]}: choose a new folder")


def claim(out: Path, evaluation: Mapping) -> None:
    """Makes `out` the folder of an evaluation, which values for JSON describe.

    `ValueError` if it holds another one, or files from elsewhere.
    """
    described, file = json.loads(json.dumps(evaluation)), out / "evaluation.json"
    check_own(out, file.name)
    if file.exists() and (found := json.loads(file.read_text())) != described:
        changed = ", ".join(key for key in described if found.get(key) != described[key])
        raise ValueError(f"{out} holds an evaluation with other {changed}: choose another folder")
    file.write_text(json.dumps(described, indent=1) + "\n")


def record(file: Path, tasks: Sequence[Task]) -> Iterator[tuple[int, int]]:
    """Does the tasks and adds their lines to a file; yields the number done and the total after each.

    Of a task that fails, the line has the reason as its `error`, and the others are still done.
    """
    with file.open("a") as log:
        if log.tell():
            log.write("\n")  # the last line may be incomplete
        for i, (line, work) in enumerate(tasks):
            try:
                line = line | work()
            except Exception as error:  # whatever it is, it only concerns this picture
                line = line | {"error": in_a_line(error)}
            log.write(json.dumps(line) + "\n")
            log.flush()
            yield i + 1, len(tasks)


def lines(out: Path, *names: str) -> list[dict]:
    """The lines of all files `lines*.jsonl`, sorted by what they have under these names; without incomplete ones."""
    found = {}
    for file in sorted(out.glob("lines*.jsonl")):
        for text in file.read_text().splitlines():
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                continue
            found[tuple(line[name] for name in names)] = line
    return [found[key] for key in sorted(found)]
