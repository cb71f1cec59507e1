"""The protocol open vocabulary: words of classes, what each row names, scores, and the command."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from test_command_line import QUICK, called

from emerdiff import Segmentation, Settings
from emerdiff.imagetext import Map
from emerdiff.miniature.scenes import CLASSES
from emerdiff.studies.datasets import VOID, Scenes, open_dataset
from emerdiff.studies.vocabulary import ALONE, NAIVE, OURS, TRUE, Vocabulary, counted, named, vocabulary


@pytest.fixture
def folder(tmp_path, picture):
    """Two pictures; the truth is class 0 on the left, class 2 on the right, with void between."""
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    truth = np.zeros((128, 192), np.uint8)
    truth[:, 90:], truth[:, 88:92] = 2, VOID
    for name in ("a", "b"):
        picture.save(tmp_path / "data" / "images" / f"{name}.png")
        Image.fromarray(truth).save(tmp_path / "data" / "labels" / f"{name}.png")
    (tmp_path / "data" / "classes.txt").write_text("sea|water\ncar\nsea|water\n")
    return tmp_path / "data"


def write_map(file, word: str) -> None:
    """A map in which everything is that word."""
    words = ("car", "sea", "water")
    file.parent.mkdir(exist_ok=True)
    np.savez(file, scores=np.float32([[[word == one for one in words]] * 2]), words=np.array(words))


def test_classes_with_the_same_line_count_as_one(folder):
    found = vocabulary(open_dataset(str(folder), 64), None)
    assert found.words.groups == (("sea", "water"), ("car",))
    assert found.word_of_class[:4].tolist() == [0, 1, 0, VOID] and found.word_of_class[VOID] == VOID


def test_drawn_scenes_have_words_of_their_own_or_those_of_a_file(tmp_path):
    scenes = Scenes(range(1), 64)
    own = vocabulary(scenes, None)
    assert len(own.words.groups) == 23
    wheel, car = (own.word_of_class[CLASSES.index(part)] for part in ("wheel", "car body"))
    assert wheel == car and own.words.names[car] == "car"
    (tmp_path / "words.txt").write_text("\n".join(CLASSES))
    assert vocabulary(scenes, tmp_path / "words.txt").words.names == CLASSES
    (tmp_path / "words.txt").write_text("sky\ncloud")
    with pytest.raises(ValueError, match="a line for each of 34 classes, not 2"):
        vocabulary(scenes, tmp_path / "words.txt")


def test_a_folder_without_words_says_what_it_needs(folder):
    (folder / "classes.txt").unlink()
    with pytest.raises(ValueError, match="classes.txt is missing: it needs a line for each class"):
        vocabulary(open_dataset(str(folder), 64), None)


def test_each_row_names_pixels_by_its_own_masks():
    """Four cells in a row: the model finds sky, car, car, car; the masks and the truth group them differently."""
    scores = np.array([[[3.0, 0], [0, 1], [0, 1], [0, 1]]])
    k, cells = 2, np.array([[0, 0, 1, 1]])
    ours = np.zeros((k, 3, 2, 8), np.float32)
    ours[0, :, :, :2] = ours[1, :, :, 2:] = 1  # our masks: one cell and three; the naive ones: two and two
    image, features = np.zeros((2, 8, 3), np.uint8), np.zeros((1, 4, 2), np.float32)
    result = Segmentation(image, cells.astype(np.int32), features, ours, (8, 2), Settings(num_segments=k), "none")
    truth = np.array([[0, 0, 0, 0, 0, 1, 1, VOID]] * 2, np.uint8)
    found = named(result, truth, Vocabulary(("sky", "car")), Map("map", scores, ("sky", "car")))
    assert found[ALONE][0, [0, 1, 4, 5, 6, 7]].tolist() == [0, 0, 1, 1, 1, 1]
    assert found[OURS][0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert found[NAIVE][0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]  # the mean of 3, 0 and of 0, 1
    assert found[TRUE][0, :7].tolist() == [0, 0, 0, 0, 0, 1, 1]
    np.testing.assert_array_equal(counted(found[OURS], truth, 2), [[4, 4], [10, 4], [4, 10]])


def test_the_command_scores_all_rows_and_continues(capsys, checkpoint, folder, tmp_path):
    for name in "abc":
        write_map(tmp_path / "maps" / f"{name}.npz", "sea")
    out = tmp_path / "out"
    command = ["vocabulary", folder, "--out", out, "--name-model", tmp_path / "maps"]
    command += ["--model", checkpoint, "--device", "cpu", *QUICK]
    status, printed, err = called(capsys, *command)
    assert (status, err) == (0, "") and "2 pictures of" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert {row: of["accuracy"] for row, of in summary["scores"].items()} == dict.fromkeys(
        (ALONE, NAIVE, OURS, TRUE), 1
    )
    assert summary["gains"][ALONE]["miou"] == [0, 0, 0] and f"| {ALONE} | 100.0 (+0.0: +0.0 to +0.0)" in printed
    before = (out / "lines.jsonl").read_text()
    (folder / "labels" / "a.png").unlink()
    Image.fromarray(np.full((128, 192), 9, np.uint8)).save(folder / "labels" / "c.png")
    Image.open(folder / "images" / "b.png").save(folder / "images" / "c.png")
    status, printed, err = called(capsys, *command)
    assert status == 1 and "c: its labels have class 9, for which there is no line of words" in err
    assert (out / "lines.jsonl").read_text().startswith(before)
    status, _, err = called(capsys, *command, "--num-segments", 3)
    assert status == 1 and "holds an evaluation with other settings" in err


def test_each_picture_is_named_by_its_own_map(capsys, checkpoint, folder, tmp_path):
    for name, word in (("a", "sea"), ("b", "car")):
        write_map(tmp_path / "maps" / f"{name}.npz", word)
    command = ["vocabulary", folder, "--out", tmp_path / "out", "--name-model", tmp_path / "maps"]
    command += ["--model", checkpoint, "--device", "cpu", *QUICK]
    assert called(capsys, *command)[0] == 0
    lines = map(json.loads, (tmp_path / "out" / "lines.jsonl").read_text().splitlines())
    right = {line["picture"]: sum(line["counts"][ALONE][0]) for line in lines}
    assert right["a"] > 0 == right["b"]


@pytest.mark.parametrize(
    "broken, said",
    [
        ("missing", r"maps/b\.npz is missing: .*maps has maps of 1 of the 2 pictures, and each needs one"),
        ("not a map", r"b: cannot read '.*maps/b\.npz' as a map"),
        ("other words", r"b: the map has no word 'sea'; it has 'sky', 'fog' among 2"),
        ("a single one", r"maps/a\.npz is a map of one picture, but there are 2 pictures: name a folder"),
        ("none", r"cannot load '.*/maps' for names"),
    ],
)
def test_maps_that_are_missing_or_bad_are_told_by_their_names(capsys, checkpoint, folder, tmp_path, broken, said):
    maps = tmp_path / "maps"
    maps.mkdir()
    if broken != "none":
        write_map(maps / "a.npz", "sea")
    if broken == "not a map":
        (maps / "b.npz").write_bytes(b"PK")
    elif broken == "other words":
        np.savez(maps / "b.npz", scores=np.zeros((1, 1, 2), np.float32), words=np.array(["sky", "fog"]))
    model = maps / "a.npz" if broken == "a single one" else maps
    command = ["vocabulary", folder, "--out", tmp_path / "out", "--name-model", model, "--model", checkpoint]
    status, _, err = called(capsys, *command, "--device", "cpu", *QUICK)
    assert status == 1 and re.search(said, err)
    if err.startswith("b: "):  # the other picture is scored
        assert json.loads((tmp_path / "out" / "summary.json").read_text())["pictures"] == 1
