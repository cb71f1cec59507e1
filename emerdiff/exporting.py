"""What can be taken away of a segmentation: cut-outs, COCO annotations, and all of it in one zip."""

import io
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo
from zlib import Z_RLE

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import find_objects

from .drawing import indexed_png, overlay
from .segmentation import Segmentation

LONGEST_NAME = 80  # characters
OPACITY = 0.6  # of visible segments over the picture
PICTURE = "picture.png"


@dataclass(frozen=True, eq=False)
class Legend:
    """How segments are called and drawn. Raises `ValueError` where the parts do not fit or a name is not allowed."""

    names: tuple[str, ...]
    """One for each of k segments: anything of at most 80 characters that UTF-8 can hold, NUL aside."""
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
                limit = f"at most {LONGEST_NAME} characters, without NUL or half of a surrogate pair"
                raise ValueError(f"a segment's name must be text of {limit}, not {name!r:.100}")

    @property
    def visible(self) -> np.ndarray:
        """(k,) bool: what is not hidden."""
        return ~np.isin(np.arange(len(self.names)), list(self.hidden))


def cutout(picture: np.ndarray, mask: np.ndarray) -> Image.Image:
    """What `mask` (H, W) bool has of the picture (H, W, 3) uint8: RGBA, cropped, 0 in all channels around it."""
    window = find_objects(mask, 1)[0]
    if window is None:
        raise ValueError("the mask has no pixels to cut out")
    inside = mask[window]
    rgba = np.zeros((*inside.shape, 4), np.uint8)
    rgba[inside, :3] = picture[window][inside]
    rgba[inside, 3] = 255
    return Image.fromarray(rgba)


def coco(labels: np.ndarray, legend: Legend, file_name: str = PICTURE) -> dict:
    """COCO's images, annotations and categories for labels (H, W) in 0..k-1, as plain values for JSON.

    Each visible segment that has pixels is an annotation, a compressed RLE; segment i is of category i + 1.
    """
    height, width = labels.shape
    columns = labels.T.copy()  # the order of COCO's runs: transposed once, not for each segment
    annotations = []
    for i in np.flatnonzero(legend.visible).tolist():
        runs = rle.encode((columns == i).T.view(np.uint8))
        if area := int(rle.area(runs)):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 1,
                    "category_id": i + 1,
                    "segmentation": runs | {"counts": runs["counts"].decode("ascii")},
                    "area": area,
                    "bbox": rle.toBbox(runs).tolist(),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [{"id": 1, "file_name": file_name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(legend.names, 1)],
    }


def export(result: Segmentation, legend: Legend, picture: Image.Image, file: Path, *, run: Mapping) -> None:
    """Writes a zip of `picture`, as it was handed in and at that size, and of all that is known of its segments.

    - `picture.png`, and `overlay.png`: visible segments over it
    - `labels.png`: the number of each pixel's segment, hidden or not
    - `segments/00.png` and so on: a cut-out of each visible segment that has pixels
    - `annotations.json`: the same in COCO's format
    - `segmentation.npz`: labels, naive labels and confidence at the network's size, and labels at the picture's
    - `run.json`: `run`, the settings and the legend

    The same input gives the same bytes. Raises `ValueError` where picture or legend do not fit the result; `file`
    is then, as after any failure, as it was.
    """
    if picture.size != result.original_size:
        segmented, given = ("{} x {}".format(*size) for size in (result.original_size, picture.size))
        raise ValueError(f"the picture must have the size that was segmented, {segmented} pixels, not {given}")
    if len(legend.names) != result.settings.num_segments:
        raise ValueError(f"{result.settings.num_segments} segments need as many names, not {len(legend.names)}")
    part = file.with_name(f"{file.name}.part")
    try:
        with ZipFile(part, "w") as archive:
            _write(archive, result, legend, np.asarray(picture.convert("RGB")), run)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _write(archive: ZipFile, result: Segmentation, legend: Legend, picture: np.ndarray, run: Mapping) -> None:
    labels = result.labels_at_original_size.astype(np.uint8)  # there are at most 256 segments
    known = {"names": legend.names, "hidden": sorted(map(int, legend.hidden))}
    for name, value in {"run": {**run, **result.summary(), **known}, "annotations": coco(labels, legend)}.items():
        archive.writestr(ZipInfo(f"{name}.json"), _json(value, indent=1) + "\n", ZIP_DEFLATED)
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
    archive.writestr(ZipInfo("segmentation.npz"), arrays.getvalue())
    # Pixels alone: what else the picture's file knew, such as a place or a colour profile, stays behind.
    _save(archive, PICTURE, Image.fromarray(picture))
    _save(archive, "overlay.png", Image.fromarray(overlay(picture, labels, legend.colours, OPACITY * legend.visible)))
    _save(archive, "labels.png", indexed_png(labels, legend.colours))
    windows = find_objects(labels + np.int16(1), len(legend.names))
    for i in np.flatnonzero(legend.visible):
        if window := windows[i]:
            _save(archive, f"segments/{i:02}.png", cutout(picture[window], labels[window] == i))


def _save(archive: ZipFile, name: str, picture: Image.Image) -> None:
    with archive.open(ZipInfo(name), "w") as file:  # its date is 1980, always
        picture.save(file, "PNG", compress_type=Z_RLE)  # as small as by default, in a third of the time


def _json(value: object, **options) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
