"""The folder of a run's results: it belongs to one run, which can be killed at any time, continued, and shared.

A picture is done when its entry is there, and that is written last. Whatever does not belong to one picture is made
anew from the entries, in their order, by each process that finds all pictures done. So neither the number of processes
nor what happened to them can be seen from the result.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

STATE = ".emerdiff"
RUN, DONE, FAILED, PARTS = (f"{STATE}/{name}" for name in ("run.json", "done", "failed", "parts"))
MANIFEST, FAILURES = "manifest.json", "failures.txt"


@dataclass(frozen=True)
class Entry:
    """A picture that is done."""

    name: str
    stem: str
    digest: str
    """SHA-256 of its file."""
    image: str
    """The name of its copy in each format that has one."""
    width: int
    height: int


def claim(out: Path, run: Mapping) -> None:
    """Makes `out` the folder of a run, which is described by values for JSON, one level deep.

    Raises `ValueError` if it holds another run, or files from elsewhere.
    """
    described = json.loads(json.dumps(run))
    if not (out / RUN).exists():
        if strange := visible(out):
            raise ValueError(f"{out} holds files that are not of such a run, as {strange[0]}: choose a new folder")
        for kind in (DONE, FAILED, PARTS):
            (out / kind).mkdir(parents=True, exist_ok=True)
        _write(out, RUN, [_json(described)])
    found = _read(out / RUN)
    if other := _differing(found, described):
        raise ValueError(f"{out} holds a run with {', '.join(other)}: choose another folder, or run with the same")


def visible(out: Path) -> list[str]:
    """The names in a folder in their order, without those that begin with a dot."""
    return sorted(path.name for path in out.iterdir() if path.name[:1] != ".")


def _differing(found: Mapping, described: Mapping) -> list[str]:
    """What a folder's run has and this one has not, as `name value`."""
    told = []
    for key in {**found, **described}:
        theirs, ours = found.get(key), described.get(key)
        if isinstance(theirs, dict) and isinstance(ours, dict):
            told += _differing(theirs, ours)
        elif theirs != ours:
            told.append(f"{key} {theirs if isinstance(theirs, str | int | float) else json.dumps(theirs)}")
    return told


def entries(out: Path) -> list[Entry]:
    """The pictures that are done, by stem."""
    return [Entry(**_read(file)) for file in sorted((out / DONE).glob("*.json"))]


def number_done(out: Path) -> int:
    return sum(file.name.endswith(".json") for file in os.scandir(out / DONE))


def is_done(out: Path, stem: str) -> bool:
    return (out / DONE / f"{stem}.json").exists()


def put(out: Path, entry: Entry, files: Mapping[str, bytes], copies: Collection[str], image: bytes) -> None:
    """Writes a picture's `files`, by their paths in `out`, its `image` in the folders `copies`, and last its entry.

    Each file is complete or not there at all. Raises `ValueError` if there are other files in their places. Those that
    a killed process left are no others: a run gives the same bytes each time.
    """
    for name, content in [*files.items(), *((f"{folder}/{entry.image}", image) for folder in copies)]:
        if os.path.lexists(out / name) and not _holds(out / name, content):
            raise ValueError(f"{name} already exists and is not of this run: move it away")
    part = out / STATE / _part()
    part.mkdir()
    try:
        for name, content in files.items():
            _move(_written(part / "file", content), out / name)
        if copies:
            kept = _written(part / "image", image)
            for folder in copies:
                _move(_linked(kept, part / "copy"), out / folder / entry.image)
        _move(_written(part / "entry", _json(asdict(entry)).encode()), out / DONE / f"{entry.stem}.json")
        (out / FAILED / f"{entry.stem}.json").unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _part() -> str:
    """A new name for what is being written; what a killed process leaves of these is removed in the end."""
    return f"part-{uuid4().hex}"


def _holds(file: Path, content: bytes) -> bool:
    return file.is_file() and not file.is_symlink() and file.read_bytes() == content


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def _linked(file: Path, to: Path) -> Path:
    """The same file again, without taking its room again where the file system can do that."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
    return to


def _move(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    file.replace(to)


def fail(out: Path, name: str, stem: str, reason: str) -> None:
    """Notes that a picture failed; a later run tries again."""
    _write(out, f"{FAILED}/{stem}.json", [_json({"name": name, "reason": reason})])


def failures(out: Path) -> dict[str, str]:
    """Names of pictures that failed, and why."""
    notes = [_read(file) for file in sorted((out / FAILED).glob("*.json"))]
    return {note["name"]: note["reason"] for note in notes}


def part_of(out: Path, kind: str, entry: Entry) -> object:
    """What a picture contributes to a file about all: what was put as `part_name(kind, stem)`."""
    return _read(out / part_name(kind, entry.stem))


def part_name(kind: str, stem: str) -> str:
    return f"{PARTS}/{kind}/{stem}.json"


def finish(out: Path, wholes: Iterable[tuple[str, Iterable[str]]], twins: Mapping[str, str]) -> None:
    """Writes the files about all pictures: those of the formats, a list of failures, and last the manifest.

    If the manifest says already what it would say, they are there.
    """
    run, failed = _read(out / RUN), failures(out)
    told = {**run, "failures": failed, "duplicates": dict(sorted(twins.items()))}
    lines = [json.dumps({"picture": e.name, "stem": e.stem, "sha256": e.digest}) for e in entries(out)]
    listed = ',\n "pictures": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    manifest = json.dumps(told, indent=1).removesuffix("\n}") + listed
    if (out / MANIFEST).exists() and (out / MANIFEST).read_text(encoding="utf-8") == manifest:
        return
    for name, text in wholes:
        _write(out, name, text)
    (out / FAILURES).unlink(missing_ok=True)
    if failed:
        _write(out, FAILURES, [f"{name}: {reason}\n" for name, reason in failed.items()])
    _write(out, MANIFEST, [manifest])
    for left in (out / STATE).glob("part-*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


def _write(out: Path, name: str, text: Iterable[str]) -> None:
    """A file that is complete or not there at all."""
    part = out / STATE / _part()
    try:
        with part.open("w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(text)
        _move(part, out / name)
    except FileNotFoundError:  # another process has finished, too, and tidied up: it wrote the same
        if not (out / name).exists():
            raise
    finally:
        part.unlink(missing_ok=True)


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))
