"""Writes a segmentation as files: each complete or not at all, and never over a file from elsewhere."""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .drawing import indexed_png, overlay, palette
from .exporting import Legend, coco
from .naming import Names
from .segmentation import Segmentation

LABELS, OVERLAY, SUMMARY = ENDINGS = ("_labels.png", "_overlay.png", ".json")
COCO = "_coco.json"
Identity = tuple[int, int]
"""Device and inode, which identify a file under any name."""


def identity(path: Path) -> Identity | None:
    """The file that a path leads to, or None if that cannot be found out."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def check_place(folder: Path, stem: str, pictures: Collection[Identity]) -> None:
    """Raises `ValueError` if `write` would overwrite one of the `pictures`, or a file that it did not write."""
    for file in (folder / f"{stem}{ending}" for ending in (*ENDINGS, COCO)):
        if os.path.lexists(file):
            if identity(file) in pictures:
                raise ValueError(f"its {file.name} would overwrite one of the pictures: choose another folder")
            if not _is_own(file):
                reason = "already exists and was not written by this program, or has been changed since"
                raise ValueError(f"{file.name} {reason}: move it away, or choose another folder")


def write(
    result: Segmentation,
    folder: Path,
    stem: str,
    *,
    picture: str,
    pictures: Collection[Identity],
    names: Names | None = None,
) -> tuple[str, ...]:
    """Writes `STEM_labels.png` at the picture's size, `STEM_overlay.png` at the network's, and `STEM.json`.

    The last contains the name of the `picture`, the settings and the segments. With `names`, segments have theirs
    there, and `STEM_coco.json` has the segments in COCO's format, with names as categories; without, an old one is
    removed. Each file is complete or not there at all. Files of these names are replaced if this function wrote them
    and they have not been changed since; otherwise it raises `ValueError`. Returns the endings of the files.
    """
    colours, labels = palette(result.settings.num_segments), result.labels_at_original_size
    with TemporaryDirectory(prefix=".emerdiff-", dir=folder, ignore_cleanup_errors=True) as part:
        _save(indexed_png(labels, colours), Path(part, LABELS))
        _save(Image.fromarray(overlay(result.image, result.labels, colours)), Path(part, OVERLAY))
        values = {"picture": picture} | result.summary()
        if names:
            values["words"] = list(names.words)
            for i, segment in enumerate(values["segments"]):
                segment |= names.summary(i)
            called = tuple(names.name(i) or "" for i in range(len(colours)))
            image_id = int.from_bytes(hashlib.sha256(labels.tobytes()).digest()[-4:]) % (2**31 - 1) + 1
            _save_json(coco(labels, Legend(called, colours), file_name=picture, image_id=image_id), Path(part, COCO))
        _save_json(values, Path(part, SUMMARY))
        check_place(folder, stem, pictures)
        endings = (*ENDINGS, COCO) if names else ENDINGS
        for ending in endings:
            Path(part, ending).replace(folder / f"{stem}{ending}")
        if not names:
            (folder / f"{stem}{COCO}").unlink(missing_ok=True)  # it would tell of other segments
    return endings


def _save_json(values: dict, file: Path) -> None:
    text = json.dumps({"software": _mark(json.dumps(values).encode())} | values, indent=1)
    file.write_text(text + "\n")


def _save(picture: Image.Image, file: Path) -> None:
    text = PngInfo()
    text.add_text("Software", _mark(picture.convert("RGB").tobytes()))
    picture.save(file, pnginfo=text)


def _is_own(file: Path) -> bool:
    if file.is_symlink():
        return False
    try:
        if file.suffix == SUMMARY:
            values = json.loads(file.read_bytes())
            return values.pop("software") == _mark(json.dumps(values).encode())
        with Image.open(file, formats=["PNG"]) as picture:
            return picture.info["Software"] == _mark(picture.convert("RGB").tobytes())
    except Exception:  # a file from elsewhere can raise anything
        return False


def _mark(content: bytes) -> str:
    """A mark that says that this program wrote a file; its digest shows whether the content was changed since."""
    return f"emerdiff {hashlib.sha256(content).hexdigest()[:16]}"
