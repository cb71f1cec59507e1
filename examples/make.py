"""Draws the example scenes, segments them and some photographs, and stores what the page shows of them at once:
`python examples/make.py`.

As on the page, a run finds many segments, which are then merged into fewer. A scene has the picture NAME.jpg and the
classes NAME_truth.png; photographs stay in the packages that carry them. Of either there are the segments
NAME_labels.png, NAME_naive.png and NAME_coarse.png, which are indexed, and in NAME_change.png how much each pixel
changes with one of them. examples.json holds the rest. figure.png is drawn for the README. Run it again whenever the
weights, the scenes, the photographs or the method change.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # run from a clone, not installed

import emerdiff
from emerdiff.drawing import indexed_png, overlay, palette
from emerdiff.miniature.scenes import CLASSES, draw_scene
from explorer.examples import digest, photographed
from explorer.pictures import LEVELS, interesting
from explorer.seen import seen
from explorer.session import FINE

SIDE = 512  # pixels of the drawn scenes
SCENES = (  # name, title, kind of scene, seed, k; the page opens with the first
    ("boat", "Boat", "boat", 9, 5),
    ("house", "House", "house", 2, 6),
    ("room", "Room", "room", 10, 8),
    ("tree", "Tree", "tree", 3, 6),
    ("animal", "Cow", "animal", 7, 5),
    ("car", "Car", "car", 2, 5),
    ("shore", "Shore", "shore", 4, 4),
    ("street", "Street", "street", 10, 8),
)
GRADIO = "from gradio, Apache 2.0"
PHOTOGRAPHS = (  # name, title, package, its file, whose it is, k
    ("cheetah", "Cheetah", "gradio", "media_assets/images/cheetah.jpg", GRADIO, 4),
    ("lion", "Lion", "gradio", "media_assets/images/lion.jpg", GRADIO, 5),
    ("tower", "Tower", "gradio", "media_assets/images/tower.jpg", GRADIO, 5),
    ("china", "Palace", "sklearn", "datasets/images/china.jpg", "danielbuechele, CC BY 2.0, from scikit-learn", 4),
    ("flower", "Flower", "sklearn", "datasets/images/flower.jpg", "vultilion, CC BY 2.0, from scikit-learn", 4),
)


def main() -> None:
    pipe = emerdiff.load("miniature", dtype=torch.float32)  # the same on any processor
    entries, figures = [], []
    for name, title, kind, seed, k in SCENES:
        scene, picture = draw_scene(seed, SIDE, kind), HERE / f"{name}.jpg"
        Image.fromarray(scene.image).save(picture, quality=90)
        indexed_png(scene.labels, palette(len(CLASSES))).save(HERE / f"{name}_truth.png", optimize=True)
        result, stored = segmented(pipe, picture, name, k)
        drawn = {"kind": kind, "seed": seed, "caption": scene.caption}
        entries.append({"name": name, "title": title, **drawn, **stored})
        figures.append((scene.image, result.naive_labels_at((SIDE, SIDE)), result.labels_at_original_size, k))
    for name, title, package, file, credit, k in PHOTOGRAPHS:
        if (picture := photographed(package, file)) is None:
            raise FileNotFoundError(f"{package} has no {file}: install requirements.txt")
        _, stored = segmented(pipe, picture, name, k)
        photograph = {"photograph": {"package": package, "file": file}, "credit": credit}
        entries.append({"name": name, "title": title, **photograph, **stored})
    (HERE / "examples.json").write_text(json.dumps(entries, indent=1) + "\n")
    figure(figures[:4])


def segmented(pipe: emerdiff.EmerDiffPipeline, picture: Path, name: str, k: int) -> tuple[emerdiff.Segmentation, dict]:
    """The picture in k segments, and what is stored of it; the PNGs are written."""
    result = emerdiff.recut(pipe(picture, pipe.settings(num_segments=FINE)), k)
    width, height = seen(str(picture)).shown.size
    labels, naive = result.labels_at((width, height)), result.naive_labels_at((width, height))
    for what, values in (("labels", labels), ("naive", naive), ("coarse", result.coarse_labels)):
        indexed_png(values, palette(k)).save(HERE / f"{name}_{what}.png", optimize=True)
    segment = interesting(result)
    change = LEVELS * result.differences[segment]  # (H, W)
    grey = Image.fromarray((255 * change / change.max()).round().astype(np.uint8))
    grey.save(HERE / f"{name}_change.png", optimize=True)
    print(f"{name}: {result.changed:.0%} of the pixels differ from naive upsampling")
    stored = {"segment": segment, "most": round(float(change.max()), 2), "summary": result.summary()}
    return result, {"sha256": digest(picture), "k": k, **stored}


def figure(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]) -> None:
    """figure.png: picture, naive upsampling and EmerDiff, a column each."""
    plot, axes = plt.subplots(3, len(rows), figsize=(2.6 * len(rows), 7.9))
    for column, (image, naive, labels, k) in enumerate(rows):
        pictures = (
            ("Picture", image),
            ("Naive upsampling", overlay(image, naive, palette(k))),
            ("EmerDiff", overlay(image, labels, palette(k))),
        )
        for axis, (title, picture) in zip(axes[:, column], pictures, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.set_ylabel(title if column == 0 else "", fontsize=13)
    plot.tight_layout(pad=0.4)
    plot.savefig(HERE / "figure.png", dpi=80)


if __name__ == "__main__":
    main()
