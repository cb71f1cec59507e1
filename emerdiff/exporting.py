"""Exports a segmentation: cut-outs, COCO annotations, and a zip with everything."""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo
from zlib import Z_RLE

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import find_objects

from .drawing import indexed_png, overlay
from .filenames import NAMELESS, readable, safe_stem
from .segmentation import Segmentation

LONGEST_NAME = 80  # characters
OPACITY = 0.6  # of visible segments over the picture
NO_DATE = "1980-01-01 00:00:00"  # where COCO requires one: the earliest of a zip, so that bytes do not vary


@dataclass(frozen=True, eq=False)
class Legend:
    """Names and colours of segments. Raises `ValueError` if the parts do not fit together or a name is not allowed."""

    names: tuple[str, ...]
    """One for each of k segments: any text of at most 80 characters that UTF-8 can encode, without NUL."""
    colours: np.ndarray
    """(k, 3) uint8."""
    hidden: frozenset[int] = frozenset()
    """Segments, 0 to k - 1, that pictures do not show."""

    def __post_init__(self) -> None:
        k = len(self.names)
        if self.colours.shape != (k, 3) or self.colours.dtype != np.uint8:
            found = f"{self.colours.shape} {self.colours.dtype}"
            raise ValueError(f"colours must be ({k}, 3) uint8, one for each of {k} names, not {found}")
        if beyond := [i for i in self.hidden if i not in range(k)]:
            raise ValueError(f"hidden segments must be from 0 to {k - 1}, not {beyond}")
        for name in self.names:
            if not isinstance(name, str) or not re.fullmatch(rf"[^\0\ud800-\udfff]{{0,{LONGEST_NAME}}}", name):
                limit = f"at most {LONGEST_NAME} characters, without NUL or lone surrogates"
                raise ValueError(f"a segment's name must be text of {limit}, not {name!r:.100}")

    @property
    def visible(self) -> np.ndarray:
        """(k,) bool: which segments are not hidden."""
        return ~np.isin(np.arange(len(self.names)), list(self.hidden))


def cutout(picture: np.ndarray, mask: np.ndarray) -> Image.Image:
    """The part of a picture (H, W, 3) uint8 inside `mask` (H, W) bool: RGBA, cropped, all channels 0 outside."""
    window = find_objects(mask, 1)[0]
    if window is None:
        raise ValueError("the mask is empty: there are no pixels to cut out")
    inside = mask[window]
    rgba = np.zeros((*inside.shape, 4), np.uint8)
    rgba[inside, :3] = picture[window][inside]
    rgba[inside, 3] = 255
    return Image.fromarray(rgba)


def coco(labels: np.ndarray, legend: Legend, *, file_name: str, image_id: int) -> dict:
    """All sections of COCO's format for labels (H, W) in 0..k-1, as plain values for JSON.

    Each visible segment that has pixels becomes an annotation with a compressed RLE; that of segment i has the id
    256 image_id + i. Categories are numbered from 1 in the order of the names, hidden segments included. Segments
    share a category if their names are the same in NFC, whatever their white space; upper and lower case differ. A
    segment whose name has nothing readable is called "Unnamed segment" and its number.
    """
    height, width = labels.shape
    names = [readable(name) or f"Unnamed segment {i}" for i, name in enumerate(legend.names)]
    categories = {name: number for number, name in enumerate(dict.fromkeys(names), 1)}
    annotations = [
        {"id": 256 * image_id + i, "image_id": image_id, "category_id": categories[names[i]]} | region
        for i, region in coco_regions(labels, np.flatnonzero(legend.visible).tolist())
    ]
    return {
        **coco_head(f"Segments of {file_name}, found by EmerDiff without training or labels"),
        "images": [coco_image(image_id, width, height, file_name)],
        "annotations": annotations,
        "categories": coco_categories(categories),
    }


def coco_regions(labels: np.ndarray, segments: Iterable[int]) -> Iterator[tuple[int, dict]]:
    """Those of the `segments` that have pixels in labels (H, W), each with what COCO says of a region."""
    columns = labels.T.copy()  # COCO's runs go down columns: transpose once, not for each segment
    for i in segments:
        runs = rle.encode((columns == i).T.view(np.uint8))
        if area := float(rle.area(runs)):
            counts = runs | {"counts": runs["counts"].decode("ascii")}
            yield i, {"segmentation": counts, "area": area, "bbox": rle.toBbox(runs).tolist(), "iscrowd": 0}


def coco_head(description: str) -> dict:
    info = {
        "year": int(NO_DATE[:4]),
        "version": "1.0",
        "description": description,
        "contributor": "EmerDiff Explorer",
        "url": "https://arxiv.org/abs/2401.11739",
        "date_created": NO_DATE,
    }
    return {"info": info, "licenses": [{"id": 1, "name": "unknown", "url": ""}]}


def coco_image(image_id: int, width: int, height: int, file_name: str) -> dict:
    return {
        "id": image_id,
        "width": width,
        "height": height,
        "file_name": file_name,
        "license": 1,
        "flickr_url": "",
        "coco_url": "",
        "date_captured": NO_DATE,
    }


def coco_categories(names: Iterable[str]) -> list[dict]:
    """Numbered from 1."""
    return [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(names, 1)]


def export(
    result: Segmentation, legend: Legend, picture: Image.Image, file: Path, *, run: Mapping, name: str = NAMELESS
) -> None:
    """Writes a zip with `picture`, which is the original at its own size, and everything known about its segments.

    `name` is the name of the picture's file and may be any text. All files begin with STEM, which is the name made safe
    and a digest of name, picture and labels, so that the files of two zips never overwrite each other:

    - `STEM.png`, and `STEM_overlay.png` with the visible segments drawn over it
    - `STEM_labels.png`: the number of each pixel's segment, hidden or not
    - `STEM_segments/00.png` and so on: a cut-out of each visible segment that has pixels
    - `STEM_coco.json`: the same in COCO's format; its ids, too, depend on picture and labels
    - `STEM.npz`: labels, naive labels and confidence at the network's size, and labels at the picture's size
    - `STEM_run.json`: `run`, the settings and the legend

    The same input gives the same bytes. Raises `ValueError` if the picture or the legend does not fit the result. After
    any failure `file` is as it was before.
    """
    if picture.size != result.original_size:
        segmented, given = ("{} x {}".format(*size) for size in (result.original_size, picture.size))
        raise ValueError(f"the picture must be as large as the one segmented, {segmented} pixels, not {given}")
    if len(legend.names) != result.settings.num_segments:
        raise ValueError(f"{result.settings.num_segments} segments need as many names, not {len(legend.names)}")
    part = file.with_name(f"{file.name}.part")
    try:
        with ZipFile(part, "w") as archive:
            _write(archive, result, legend, np.asarray(picture.convert("RGB")), run, safe_stem(name))
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _write(
    archive: ZipFile, result: Segmentation, legend: Legend, picture: np.ndarray, run: Mapping, stem: str
) -> None:
    labels = result.labels_at_original_size.astype(np.uint8)  # there are at most 256 segments
    digest = hashlib.sha256(f"{stem} {labels.shape}".encode() + picture.tobytes() + labels.tobytes()).digest()
    stem = f"{stem}-{digest.hex()[:6]}"
    image_id = int.from_bytes(digest[-4:]) % (2**31 - 1) + 1  # an id that every tool accepts: 31 bits, not 0
    known = {"names": legend.names, "hidden": sorted(map(int, legend.hidden))}
    _save_json(archive, f"{stem}_run.json", {**run, **result.summary(), **known})
    # In ASCII, because pycocotools opens the file in the encoding of the machine.
    annotations = coco(labels, legend, file_name=f"{stem}.png", image_id=image_id)
    _save_json(archive, f"{stem}_coco.json", annotations, ensure_ascii=True)
    arrays = io.BytesIO()
    np.savez_compressed(
        arrays,
        labels=result.labels.astype(np.uint8),
        labels_original=labels,
        confidence=result.confidence.astype(np.float16),
        coarse_labels=result.coarse_labels.astype(np.uint8),
        naive_labels=result.naive_labels.astype(np.uint8),
        names=np.array(legend.names, str),
        settings=_json(asdict(result.settings)),
    )
    archive.writestr(ZipInfo(f"{stem}.npz"), arrays.getvalue())
    # Only pixels: other content of the picture's file, such as a location or a colour profile, is left out.
    _save(archive, f"{stem}.png", Image.fromarray(picture))
    drawn = overlay(picture, labels, legend.colours, OPACITY * legend.visible)
    _save(archive, f"{stem}_overlay.png", Image.fromarray(drawn))
    _save(archive, f"{stem}_labels.png", indexed_png(labels, legend.colours))
    windows = find_objects(labels + np.int16(1), len(legend.names))
    for i in np.flatnonzero(legend.visible):
        if window := windows[i]:
            _save(archive, f"{stem}_segments/{i:02}.png", cutout(picture[window], labels[window] == i))


def _save_json(archive: ZipFile, name: str, value: object, **options) -> None:
    archive.writestr(ZipInfo(name), _json(value, indent=1, **options) + "\n", ZIP_DEFLATED)


def _save(archive: ZipFile, name: str, picture: Image.Image) -> None:
    with archive.open(ZipInfo(name), "w") as file:  # its date is always 1980
        picture.save(file, "PNG", compress_type=Z_RLE)  # as small as by default, in a third of the time


def _json(value: object, **options) -> str:
    return json.dumps(value, **{"ensure_ascii": False, "allow_nan": False} | options)
