import hashlib
import subprocess
import sys

import numpy as np
import pytest

from emerdiff.miniature.scenes import CLASSES, COLOURS, KINDS, MASS, PLURALS, SEASONS, draw_scene

SHOWS = {
    "sky": "sky",
    "cloud": "cloud",
    "sun": "sun",
    "moon": "sun",
    "mountain": "mountain",
    "hill": "meadow",
    "grass": "meadow",
    "soil": "soil",
    "field": "soil",
    "water": "water",
    "stream": "water",
    "road": "road",
    "pavement": "pavement",
    "house": "wall",
    "tower": "wall",
    "fence": "fence",
    "wood": "crown",
    "bush": "bush",
    "hedge": "bush",
    "car": "car body",
    "person": "torso",
    "boat": "hull",
    "lamp": "lamp",
    "sheep": "animal",
    "cow": "animal",
    "horse": "animal",
}
OTHER_WORDS = """a an and at bare brick by day dusk in many morning night of on picture scene several snowy
stone sunset the three two tree trees view with wooden"""


def digest(scene) -> str:
    return hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes() + scene.caption.encode()).hexdigest()


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(seed, 128) for seed in range(200)]


def test_a_seed_always_draws_the_same_scene():
    here = [digest(draw_scene(seed, 160)) for seed in (3, 4)]
    code = (
        "import sys; sys.path[:0] = ['tests', '.']\n"
        "from test_scenes import digest, draw_scene\n"
        "draw_scene(9, 64)\n"
        "print(*(digest(draw_scene(seed, 160)) for seed in (3, 4)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == here and here[0] != here[1]


def test_every_kind_at_any_size_gives_an_image_labels_and_a_caption():
    for kind in KINDS:
        for size in (32, 101):
            scene = draw_scene(5, size, kind)
            assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
            assert scene.labels.shape == (size, size) and scene.labels.dtype == np.uint8
            assert scene.labels.max() < len(CLASSES) and scene.caption


def test_every_class_occurs_often(scenes):
    frequency = np.mean([np.bincount(s.labels.ravel(), minlength=len(CLASSES)) > 0 for s in scenes], 0)
    rare = {name: float(f) for name, f in zip(CLASSES, frequency, strict=True) if f < 0.05}
    assert not rare


def test_two_sizes_show_the_same_scene():
    agree = [np.mean(draw_scene(s, 512).labels[1::2, 1::2] == draw_scene(s, 256).labels) for s in range(12)]
    assert min(agree) > 0.9


def test_captions_name_only_what_is_there(scenes):
    plural = {PLURALS.get(noun, noun + "s"): part for noun, part in SHOWS.items()}
    vocabulary = {*SHOWS, *plural, *COLOURS, *SEASONS, *MASS.values(), *OTHER_WORDS.split()}
    for scene in scenes:
        words = scene.caption.replace(",", "").split()
        shares = np.bincount(scene.labels.ravel(), minlength=len(CLASSES)) / scene.labels.size
        assert set(words) <= vocabulary and 1 < len(words) <= 30 and scene.caption == scene.caption.lower()
        for word in words:
            part = SHOWS.get(word) or plural.get(word)
            assert part is None or shares[CLASSES.index(part)] >= 0.005, scene.caption
        if "tree" in words or "trees" in words:
            assert shares[CLASSES.index("crown")] + shares[CLASSES.index("trunk")] >= 0.005


def test_neither_colour_nor_height_tells_the_class(scenes):
    """The best table from colour (12 levels a channel) or row to class fails on most pixels elsewhere."""
    images, labels = np.stack([s.image for s in scenes]), np.stack([s.labels for s in scenes])
    colour = (images // 22).astype(int) @ (144, 12, 1)
    row = np.broadcast_to(np.arange(128)[:, None], labels.shape)
    for key in (colour, row):
        table = np.zeros((key.max() + 1, len(CLASSES)), int)
        np.add.at(table, (key[:100], labels[:100]), 1)
        assert np.mean(table.argmax(1)[key[100:]] == labels[100:]) < 0.4


@pytest.mark.parametrize("wrong", [dict(seed=-1), dict(size=31), dict(size=2049), dict(kind="moon base")])
def test_bad_input_is_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        draw_scene(**{"seed": 1, "size": 64, **wrong})
