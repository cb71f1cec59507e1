"""The examples: what is stored of each, so that the page opens at once, and photographs that may be missing."""

import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import numpy as np
import pytest
from PIL import Image

from emerdiff.miniature.scenes import CLASSES, draw_scene
from emerdiff.studies.scoring import hungarian, miou, tabulate
from explorer import examples as store
from explorer.examples import FOLDER, change, digest, examples, stored, table

WRITTEN = json.loads((FOLDER / "examples.json").read_text())


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_what_is_stored_of_an_example_fits_its_picture_and_itself(example):
    of, parts = stored(example), example.summary["segments"]
    assert of.labels.shape == of.naive_labels.shape == of.shown.size[::-1]
    assert of.coarse_labels.shape[::-1] == tuple(example.summary["grid"])
    counts = np.bincount(of.labels.ravel(), minlength=example.k)
    assert len(parts) == len(counts) == example.k == example.settings.num_segments
    assert np.allclose(counts / counts.sum(), [part["share"] for part in parts], atol=0.02)
    assert np.bincount(of.coarse_labels.ravel()).tolist() == [part["cells"] for part in parts]
    assert sum(row[2] for row in table(example)) == pytest.approx(100, abs=0.5)
    changed = change(example)
    assert list(changed.shape[::-1]) == example.summary["size"] and changed.max() == pytest.approx(example.most)
    labels = np.asarray(Image.fromarray(of.labels).resize(changed.shape[::-1], Image.Resampling.NEAREST))
    inside = labels == example.segment
    assert changed[inside].mean() > 2 * changed[~inside].mean()  # the segment is where the change is


def test_the_page_opens_with_segments_that_are_the_things_in_the_picture():
    first = examples()[0]
    of, truth = stored(first), np.asarray(Image.open(first.truth))
    scores = []
    for labels in (of.labels, of.naive_labels):
        scores.append(miou(hungarian([tabulate(labels, truth, np.zeros((1, 1, 1)), len(CLASSES))])))
    assert scores[0] > 0.8 and scores[0] > scores[1] + 0.05, scores


def test_photographs_stay_where_their_packages_put_them_and_say_whose_they_are():
    photographs = {example.name: example for example in examples() if example.truth is None}
    assert set(photographs) == {entry["name"] for entry in WRITTEN if "photograph" in entry}  # requirements.txt has all
    assert len({example.name for example in examples()}) == len(WRITTEN)
    for example in photographs.values():
        assert not example.picture.is_relative_to(FOLDER) and example.credit
    assert not any(example.credit for example in examples() if example.truth)


@pytest.mark.parametrize("why", ["no package", "no file", "another file"])
def test_a_photograph_that_is_not_there_or_not_the_same_is_left_out(monkeypatch, tmp_path, why):
    package = next(entry["photograph"]["package"] for entry in WRITTEN if "photograph" in entry)
    of_it = {entry["name"] for entry in WRITTEN if entry.get("photograph", {}).get("package") == package}
    if why == "no package":
        monkeypatch.setattr(store, "find_spec", lambda name: None if name == package else find_spec(name))
    elif why == "no file":
        monkeypatch.setattr(store, "photographed", lambda package, file: None)
        of_it = {entry["name"] for entry in WRITTEN if "photograph" in entry}
    else:
        monkeypatch.setattr(store, "digest", lambda file: digest(file) if file.parent == FOLDER else "0" * 64)
        of_it = {entry["name"] for entry in WRITTEN if "photograph" in entry}
    left = [example.name for example in store._made.__wrapped__()]
    assert left == [entry["name"] for entry in WRITTEN if entry["name"] not in of_it]


def test_the_script_stores_what_the_method_finds(tmp_path, monkeypatch, miniature):
    spec = spec_from_file_location("make", FOLDER / "make.py")
    spec.loader.exec_module(make := module_from_spec(spec))
    monkeypatch.setattr(make, "HERE", tmp_path)
    monkeypatch.setattr(make, "FINE", 3)
    Image.fromarray(draw_scene(5, 128).image).save(picture := tmp_path / "small.png")
    result, entry = make.segmented(miniature, picture, "small", 2)
    assert entry["k"] == len(entry["summary"]["segments"]) == 2 and entry["sha256"] == digest(picture)
    for part, expected in (("labels", result.labels_at((512, 512))), ("coarse", result.coarse_labels)):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"small_{part}.png")), expected)
    grey = np.asarray(Image.open(tmp_path / "small_change.png"))
    np.testing.assert_allclose(grey / 255 * entry["most"], make.LEVELS * result.differences[entry["segment"]], atol=0.1)
