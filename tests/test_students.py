"""Students: what they learn from, that they learn, and how they are judged."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image

from emerdiff.__main__ import main
from emerdiff.dataset.commands import segment_all
from emerdiff.dataset.pictures import find
from emerdiff.dataset.run import Wanted
from emerdiff.miniature.scenes import CLASSES, draw_scene
from emerdiff.miniature.words import WORD_OF_CLASS
from emerdiff.naming import Words
from emerdiff.studies import students
from emerdiff.studies.datasets import VOID, open_dataset
from emerdiff.studies.students import SIDE, Lesson, Worded
from emerdiff.studies.vocabulary import vocabulary


def worded(source: str, side: int = 256) -> Worded:
    dataset = open_dataset(source, side)
    return Worded(dataset, vocabulary(dataset, None))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "scenes"
    assert main(["draw", "scenes:5..7", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def run(small, drawn, tmp_path_factory):
    """The folder of a run of the drawn scenes."""
    out = tmp_path_factory.mktemp("run")
    wanted = Wanted(quick(), ("imagefolder", "npz"), min_confidence=0.1)
    assert segment_all(small, wanted, find([str(drawn / "images")], out), out) == 0
    return out


def test_drawn_scenes_are_a_folder_with_truth(drawn):
    dataset = open_dataset(str(drawn), 128)
    assert dataset.names == ("5", "6", "7")
    picture, labels = dataset.load("6")
    scene = draw_scene(6, 256)
    np.testing.assert_array_equal(np.asarray(picture), scene.image)
    np.testing.assert_array_equal(labels, scene.labels)
    assert vocabulary(dataset, None).words == worded("scenes:6..6").words  # of a folder, too


def test_lessons_of_truth_are_small_pictures_with_their_words():
    lesson, *others = students.of_truth(worded("scenes:5..6"))
    assert len(others) == 1 and lesson.picture.shape == (SIDE, SIDE, 3) and lesson.picture.dtype == np.uint8
    np.testing.assert_array_equal(lesson.classes, WORD_OF_CLASS[draw_scene(5, 256).labels[::2, ::2]])


@pytest.mark.parametrize("masks", students.MASKS)
def test_segments_get_the_class_of_the_nearest_concept(run, masks):
    with np.load(run / "npz" / "5.npz") as arrays:
        labels, features = arrays[students.MASKS[masks]], arrays["features"].astype(float)
    cells = np.arange(256) * features.shape[0] // 256
    of_pixels = features[cells][:, cells]  # (256, 256, c)
    own = np.stack([of_pixels[labels == i].mean(0) for i in range(4) if (labels == i).any()])
    numbers = [i for i in range(4) if (labels == i).any()]
    concepts = np.full((9, features.shape[2]), np.nan)
    concepts[[8, 2, 5, 3][: len(own)]] = own  # each segment's own mean is the nearest to it
    expected = np.full(256, VOID)
    expected[numbers] = [8, 2, 5, 3][: len(own)]
    lesson = next(students.of_masks(run, masks, students.by_concepts(concepts)))
    np.testing.assert_array_equal(lesson.classes, expected[labels][::2, ::2])


def test_segments_get_the_word_that_is_sure():
    """Segment 1 has no pixels; of segment 2, the model cannot tell whether it shows the sea or a car."""
    labels = np.array([[0, 0, 2, 3, VOID]])
    similar = np.float32([[0, 5, 0], [0, 5, 0], [0, 3, 3], [0, 0, 5], [5, 0, 0]])[None]  # of each pixel to the words
    model = SimpleNamespace(scale=1.0, embed=lambda _: similar, similarities=lambda embeddings, _: embeddings)
    tell = students.by_words(Words.of("sky, sea, car"), model)
    assert tell(np.zeros((1, 5, 3), np.uint8), labels, None, 4).tolist() == [1, VOID, VOID, 2]


def test_concepts_are_mean_features_of_words():
    words = SimpleNamespace(groups=("x", "y", "z"))
    scene = SimpleNamespace(names=("a", "b"), words=words, load=lambda name: (name, truths[name]))
    truths = {"a": np.array([[0, 0], [2, VOID]]), "b": np.array([[0, 2], [2, 2]])}
    features = {"a": np.float32([[[1], [3]], [[5], [100]]]), "b": np.float32([[[8], [1]], [[1], [1]]])}
    pipe = SimpleNamespace(features=lambda picture, settings: features[picture])
    first, last = students.learn_concepts(pipe, scene, None)
    np.testing.assert_array_equal(first, [[2], [np.nan], [5]])
    np.testing.assert_array_equal(last, [[4], [np.nan], [2]])


def test_a_student_learns_what_its_lessons_show_and_nothing_of_void(monkeypatch):
    monkeypatch.setattr(students, "BATCH", 4)
    rng = np.random.default_rng(0)
    lessons = []
    for _ in range(4):
        classes = np.kron(rng.integers(0, 2, (4, 4)), np.ones((SIDE // 4,) * 2)).astype(np.uint8)
        picture = np.stack([255 * classes, 255 - 255 * classes, rng.integers(0, 255, classes.shape)], 2)
        lessons.append(Lesson(picture.astype(np.uint8), np.where(rng.random(classes.shape) < 0.5, classes, VOID)))
    student = students.new_student(("a", "b"), seed=0)
    losses = list(students.teach(student, lessons, 12, seed=0))
    again = students.teach(students.new_student(("a", "b"), seed=0), lessons, 12, seed=0)
    assert losses[-1] < 0.6 * losses[0] and [next(again), next(again)] == losses[:2]


def test_the_first_layer_begins_as_whitening():
    lessons = list(students.of_truth(worded("scenes:5..8")))
    student = students.new_student(worded("scenes:5..5").words.names, seed=0)
    next(students.teach(student, lessons, 1, seed=0))
    first = next(part for part in student.modules() if isinstance(part, torch.nn.Conv2d))
    pictures = students._values(np.stack([lesson.picture for lesson in lessons]), student)
    with torch.no_grad():
        seen = first(pictures)[:, :, 1:-1, 1:-1].transpose(0, 1).flatten(1)  # without the padded edge
    assert seen.mean(1).abs().max() < 0.3 and (torch.cov(seen) - torch.eye(len(seen))).abs().max() < 0.6


def test_grades_are_those_of_the_scores(monkeypatch):
    scenes = worded("scenes:5..6", 64)
    student = students.new_student(scenes.words.names, seed=0)
    answers = {name: scenes.load(name)[1].astype(int) for name in scenes.names}
    pictures = {scenes.load(name)[0].tobytes(): name for name in scenes.names}

    def knowing(_, picture: Image.Image) -> np.ndarray:
        return answers[pictures[np.asarray(picture).tobytes()]]

    monkeypatch.setattr(students, "classify", knowing)
    perfect = students.grade(student, scenes, seed=3, seconds=1.0)
    assert (perfect.seed, perfect.miou, perfect.boundary_f, perfect.accuracy) == (3, 1, pytest.approx(1), 1)
    answers["5"] = np.zeros_like(answers["5"])
    worse = students.grade(student, scenes, seed=3, seconds=1.0)
    assert worse.miou < 0.8 and worse.boundary_f < 1
    assert worse.accuracy == np.mean([answers[name] == scenes.load(name)[1] for name in scenes.names])
    both = students.summary([perfect, worse])
    assert both["mean"]["miou"] == (1 + worse.miou) / 2 and both["spread"]["seconds"] == 0
    assert both["spread"]["accuracy"] == pytest.approx((1 - worse.accuracy) / np.sqrt(2))


def test_students_of_all_kinds_are_trained_and_kept(capsys, small, run, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("emerdiff.studies.commands.load", lambda model: small)
    monkeypatch.setattr(students, "BATCH", 2)
    for source, options in (
        (run, ["--concepts", "scenes:8..9", "--masks", "naive"]),
        (run, ["--masks", "naive"]),
        ("scenes:5..6", ["--seeds", "0", "1"]),
        ("scenes:5..6", ["--steps", "0"]),
    ):
        given = ["--test", "scenes:10..10", "--out", str(tmp_path), "--device", "cpu", "--steps", "1", *options]
        assert main(["student", str(source), *given]) == 0
        told = json.loads((tmp_path / "students.json").read_text())
        assert len(told["students"]) == 1 + ("1" in options) and 0 <= told["mean"]["miou"] <= 1
        assert "boundary_f" in capsys.readouterr().out
    kept = students.SegformerForSemanticSegmentation.from_pretrained(tmp_path / "seed-1").eval()
    assert kept.config.id2label[WORD_OF_CLASS[CLASSES.index("roof")]] == "house"
    picture = Image.fromarray(draw_scene(3, 96).image)
    assert students.classify(kept, picture).shape == (96, 96) and kept.dtype == torch.float32


def test_what_a_student_lacks_is_said(capsys, run, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(students, "SURE", 2.0)
    other, bare = (shutil.copytree(drawn, tmp_path / name) for name in ("other", "bare"))
    (other / "classes.txt").write_text("sea\ncar\n")
    (bare / "classes.txt").unlink()
    for source, options, said in (
        (run, ["--concepts", str(other)], "other and scenes:1..1 must have the same words"),
        (other, [], "other and scenes:1..1 must have the same words"),
        (run, [], "has nothing to learn from: no pixel of it has a word"),
        (bare, [], "classes.txt is missing: it needs a line for each class"),
        ("nowhere", [], "'nowhere' is neither scenes:FIRST..LAST nor a folder"),
    ):
        status = main(["student", str(source), "--test", "scenes:1..1", "--out", str(tmp_path / "out"), *options])
        assert status == 1 and said in capsys.readouterr().err
    assert main(["draw", str(drawn), "--out", str(tmp_path)]) == 1
    assert "only scenes can be drawn" in capsys.readouterr().err
