"""Draws the example scenes, segments them, and stores what the page shows of them: `python examples/make.py`.

As on the page, a run finds many segments of each scene, which are then merged into fewer. A scene has the picture
NAME.jpg, the classes NAME_truth.png, and the segments NAME_labels.png, NAME_naive.png and NAME_coarse.png; the PNGs are
indexed. examples.json holds settings and segments. figure.png is drawn for the README. Run it again whenever the
weights, the scenes or the method change.
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
from explorer.session import FINE

SIDE = 512  # pixels of the stored pictures
SCENES = (  # name, title, kind of scene, seed, k
    ("house", "House", "house", 2, 10),
    ("shore", "Shore", "shore", 4, 8),
    ("tree", "Tree", "tree", 3, 8),
    ("street", "Street", "street", 10, 14),
    ("animal", "Cow", "animal", 7, 10),
    ("car", "Car", "car", 2, 12),
    ("room", "Room", "room", 10, 12),
    ("mountains", "Mountains", "mountains", 2, 12),
)


def main() -> None:
    pipe = emerdiff.load("miniature", dtype=torch.float32)  # the same on any processor
    entries, rows = [], []
    for name, title, kind, seed, k in SCENES:
        scene = draw_scene(seed, SIDE, kind)
        Image.fromarray(scene.image).save(HERE / f"{name}.jpg", quality=90)
        result = emerdiff.recut(pipe(HERE / f"{name}.jpg", pipe.settings(num_segments=FINE)), k)
        naive = result.naive_labels_at((SIDE, SIDE))
        labels = result.labels_at_original_size
        for what, values, count in (
            ("truth", scene.labels, len(CLASSES)),
            ("labels", labels, k),
            ("naive", naive, k),
            ("coarse", result.coarse_labels, k),
        ):
            indexed_png(values, palette(count)).save(HERE / f"{name}_{what}.png", optimize=True)
        entries.append(
            {
                "name": name,
                "title": title,
                "seed": seed,
                "kind": kind,
                "caption": scene.caption,
                "k": k,
                "summary": result.summary(),
            }
        )
        rows.append((scene.image, naive, labels, k))
        print(f"{name}: {result.changed:.0%} of the pixels differ from naive upsampling")
    (HERE / "examples.json").write_text(json.dumps(entries, indent=1) + "\n")
    figure(rows[:4])


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
