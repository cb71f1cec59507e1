"""The formats of a dataset: the files that each makes of one picture, and those it makes of all."""

import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from ..drawing import indexed_png, overlay, palette
from ..exporting import OPACITY, coco_categories, coco_head, coco_image, coco_regions
from . import brush, polygons
from .folder import Entry, part_name, part_of
from .labelled import VOID, Labelled

Files = dict[str, bytes]
Wholes = Iterator[tuple[str, Iterator[str]]]
MOST_CLASSES = VOID - 1  # of CVAT's masks, beside background and void
MOST_SEGMENTS = VOID  # segments have the numbers below, and in CVAT's masks those from 1


@dataclass(frozen=True)
class Format:
    """How results are written. Paths are below the output folder."""

    what: str
    """For the help, in a few words."""
    files: Callable[[Labelled, Sequence[str]], Files]
    """The files of one picture; the second argument are the dataset's classes."""
    wholes: Callable[[Path, Sequence[Entry], Sequence[str]], Wholes] = lambda out, entries, classes: iter(())
    """The names and texts of the files about all pictures."""
    images: str = ""
    """The folder for copies of the pictures; empty if the format has none."""


# ---------------------------------------------------------------- png: what a single picture gives


def _png(one: Labelled, classes: Sequence[str]) -> Files:
    result, colours = one.result, palette(len(one.classes))
    shown = overlay(result.image, result.labels, colours, OPACITY * one.kept)
    summary = {"picture": one.name} | result.summary()
    summary["segments"] = [found | told for found, told in zip(summary["segments"], one.told, strict=True)]
    return {
        f"{one.stem}_labels.png": _label_png(one),
        f"{one.stem}_overlay.png": _encoded(Image.fromarray(shown)),
        f"{one.stem}.json": (json.dumps(summary, indent=1) + "\n").encode(),
    }


def _label_png(one: Labelled) -> bytes:
    """Indexed: each pixel's value is its segment's number; void is 255, and white."""
    colours = palette(len(one.classes))
    if (one.labels == VOID).any():
        colours = np.concatenate([palette(VOID), [[255, 255, 255]]])
    return _encoded(indexed_png(one.labels, colours))


def _encoded(picture: Image.Image) -> bytes:
    picture.save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


# ---------------------------------------------------------------- npz: all that the network found, without responses


def _npz(one: Labelled, classes: Sequence[str]) -> Files:
    result = one.result
    np.savez_compressed(
        stream := io.BytesIO(),
        labels=one.labels,  # (height, width) uint8, 255 for void
        naive_labels=result.naive_labels_at(result.original_size).astype(np.uint8),
        confidence=result.confidence.astype(np.float16),  # (H, W), the network's size
        coarse_labels=result.coarse_labels.astype(np.uint8),  # (h, w)
        features=result.features.astype(np.float16),  # (h, w, c)
        names=np.array([classes[c] for c in one.classes], str),  # (k,)
    )
    return {f"npz/{one.stem}.npz": stream.getvalue()}


# ---------------------------------------------------------------- coco: the same segments as runs and as polygons


def _coco(one: Labelled, classes: Sequence[str]) -> Files:
    regions = [
        {"category_id": one.classes[i] + 1}
        | region
        | {"polygons": [ring.ravel().tolist() for ring in polygons.outlines(one.labels == i) if len(ring) > 2]}
        for i, region in coco_regions(one.labels, one.segments)
    ]
    return {part_name("coco", one.stem): json.dumps(regions).encode()}


def _coco_wholes(out: Path, entries: Sequence[Entry], classes: Sequence[str]) -> Wholes:
    for name, key in (("annotations", "segmentation"), ("polygons", "polygons")):
        yield f"coco/{name}.json", _coco_text(out, entries, classes, key)


def _coco_text(out: Path, entries: Sequence[Entry], classes: Sequence[str], key: str) -> Iterator[str]:
    """One file in COCO's format, picture by picture: all at once may not fit into memory."""
    images = (coco_image(i, e.width, e.height, e.image) for i, e in enumerate(entries, 1))
    head = coco_head("Segments found by EmerDiff without training or labels") | {"categories": coco_categories(classes)}
    yield json.dumps(head).removesuffix("}")
    yield from _json_list(', "images": [\n', images)
    yield from _json_list(', "annotations": [\n', _coco_annotations(out, entries, key))
    yield "}\n"


def _coco_annotations(out: Path, entries: Sequence[Entry], key: str) -> Iterator[dict]:
    number = 0
    for image_id, entry in enumerate(entries, 1):
        for region in part_of(out, "coco", entry):
            number += 1
            shape, others = region[key], {k: v for k, v in region.items() if k not in ("segmentation", "polygons")}
            yield {"id": number, "image_id": image_id, "segmentation": shape} | others


def _json_list(before: str, items: Iterator[object]) -> Iterator[str]:
    for item in items:
        yield before + json.dumps(item)
        before = ",\n"
    yield "]" if before == ",\n" else f"{before}]"


# ---------------------------------------------------------------- yolo-seg: a line of text for each connected part


def _yolo(one: Labelled, classes: Sequence[str]) -> Files:
    size, lines = np.array(one.labels.shape[::-1]), []
    for i in one.segments:
        for ring in polygons.traces(one.labels == i):
            if len(ring) > 2:  # readers take two points for a box
                inside = (ring + 0.25) / size  # the same pixel, whether a reader rounds or truncates
                lines.append(" ".join([str(one.classes[i]), *(f"{value:.7f}" for value in inside.ravel())]) + "\n")
    return {f"yolo-seg/labels/{one.stem}.txt": "".join(lines).encode()}


def _yolo_wholes(out: Path, entries: Sequence[Entry], classes: Sequence[str]) -> Wholes:
    head = "train: images\nval: images  # the same ones: split them before you judge a model\nnames:\n"
    names = (f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(classes))
    yield "yolo-seg/data.yaml", itertools.chain([head], names)


# ---------------------------------------------------------------- cvat: "Segmentation mask 1.1", as Pascal VOC has it


def _cvat(one: Labelled, classes: Sequence[str]) -> Files:
    known = one.labels != VOID
    segment = np.where(known, one.labels + np.uint8(1), 0).astype(np.uint8)
    kind = np.where(known, np.append(one.classes, np.zeros(VOID + 1 - len(one.classes), int))[one.labels] + 1, 0)
    colours = voc_colours(256)
    return {
        f"cvat/SegmentationClass/{one.stem}.png": _encoded(indexed_png(kind, colours)),
        f"cvat/SegmentationObject/{one.stem}.png": _encoded(indexed_png(segment, colours)),
    }


def _cvat_wholes(out: Path, entries: Sequence[Entry], classes: Sequence[str]) -> Wholes:
    colours = voc_colours(len(classes) + 1).tolist()
    lines = [f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in zip(("background", *classes), colours, strict=True)]
    yield "cvat/labelmap.txt", iter(["# label:color_rgb:parts:actions\n", *lines])
    yield "cvat/ImageSets/Segmentation/default.txt", (f"{entry.stem}\n" for entry in entries)


def voc_colours(count: int) -> np.ndarray:
    """(count, 3) uint8: Pascal VOC's colours, in which each bit of a number stands somewhere in one of the channels."""
    bits = np.arange(count)[:, None] >> np.arange(24) & 1  # (count, 24): lowest first
    return (bits.reshape(count, 8, 3) << np.arange(7, -1, -1)[:, None]).sum(1).astype(np.uint8)


# ---------------------------------------------------------------- label-studio: predictions to correct by brush


def _label_studio(one: Labelled, classes: Sequence[str]) -> Files:
    height, width = one.labels.shape
    common = {"type": "brushlabels", "from_name": "label", "to_name": "image", "image_rotation": 0}
    common |= {"original_width": width, "original_height": height}
    regions = [
        common
        | {"id": f"segment-{i}", "score": one.scores[i]}
        | {"value": {"format": "rle", "rle": brush.encode(one.labels == i), "brushlabels": [classes[one.classes[i]]]}}
        for i in one.segments
    ]
    task = {
        "data": {"image": f"/data/local-files/?d={quote('label-studio/images/' + one.image)}", "picture": one.name},
        "predictions": [{"model_version": "emerdiff", "result": regions}],
    }
    return {part_name("label-studio", one.stem): json.dumps(task).encode()}


def _label_studio_wholes(out: Path, entries: Sequence[Entry], classes: Sequence[str]) -> Wholes:
    tasks = (part_of(out, "label-studio", entry) for entry in entries)
    yield "label-studio/tasks.json", _json_list("[\n", tasks)
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes)
    tags = '<View>\n  <Image name="image" value="$image" zoom="true"/>\n  <BrushLabels name="label" toName="image">\n'
    yield "label-studio/labelling.xml", iter([tags, labels, "  </BrushLabels>\n</View>\n"])


# ---------------------------------------------------------------- imagefolder: for the `datasets` library


def _imagefolder(one: Labelled, classes: Sequence[str]) -> Files:
    line = {
        "image_file_name": f"images/{one.image}",
        "mask_file_name": f"masks/{one.stem}.png",
        "picture": one.name,
        "segments": one.segments,
        "classes": [classes[one.classes[i]] for i in one.segments],
    }
    return {
        f"imagefolder/masks/{one.stem}.png": _label_png(one),
        part_name("imagefolder", one.stem): json.dumps(line).encode(),
    }


def _imagefolder_wholes(out: Path, entries: Sequence[Entry], classes: Sequence[str]) -> Wholes:
    lines = (json.dumps(part_of(out, "imagefolder", entry)) + "\n" for entry in entries)
    yield "imagefolder/metadata.jsonl", lines


FORMATS: Mapping[str, Format] = {
    "png": Format("an indexed label PNG, an overlay and a JSON file for each picture", _png),
    "coco": Format("COCO JSON, once with run lengths and once with polygons", _coco, _coco_wholes, "coco/images"),
    "yolo-seg": Format("polygons as Ultralytics reads them", _yolo, _yolo_wholes, "yolo-seg/images"),
    "cvat": Format('CVAT\'s "Segmentation mask 1.1"', _cvat, _cvat_wholes, "cvat/JPEGImages"),
    "label-studio": Format(
        "predictions for Label Studio's brush", _label_studio, _label_studio_wholes, "label-studio/images"
    ),
    "imagefolder": Format(
        "pictures, masks and metadata.jsonl for the datasets library",
        _imagefolder,
        _imagefolder_wholes,
        "imagefolder/images",
    ),
    "npz": Format("arrays: labels, naive labels, confidence, features", _npz),
}
