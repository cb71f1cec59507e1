"""The protocol open vocabulary: words of classes, what each row names, scores, and the command."""

import json

import numpy as np
import pytest
from PIL import Image
from test_command_line import QUICK, called

from emerdiff import Segmentation, Settings
from emerdiff.imagetext import Map
from emerdiff.miniature.scenes import CLASSES
from emerdiff.studies.datasets import VOID, Folder, Scenes
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


def test_classes_with_the_same_line_count_as_one(folder):
    found = vocabulary(Folder(folder), None)
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
        vocabulary(Folder(folder), None)


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
    scores = np.zeros((1, 2, 3), np.float32)
    scores[..., 1] = 1  # everything is sea
    np.savez(tmp_path / "map.npz", scores=scores, words=np.array(["car", "sea", "water"]))
    out = tmp_path / "out"
    command = ["vocabulary", folder, "--out", out, "--name-model", tmp_path / "map.npz"]
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
