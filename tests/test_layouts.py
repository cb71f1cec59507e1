"""Datasets with ground truth as they leave their archives: each is written here in miniature and read back."""

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from emerdiff.dataset.formats import voc_colours
from emerdiff.studies.datasets import VOID, open_dataset
from emerdiff.studies.vocabulary import vocabulary

SIZE = 96, 64


@pytest.fixture
def save(tmp_path):
    """Writes a picture below the folder: pixels, or noise of `SIZE`."""

    def write(name: str, pixels=None, palette=None) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)
        image = Image.fromarray(noise if pixels is None else pixels)
        if palette is not None:
            image.putpalette(palette.tobytes())
        image.save(file)

    return write


@pytest.fixture
def truth():
    """Four fields: 1, 5, 0 and void."""
    found = np.zeros(SIZE[::-1], np.uint8)
    found[:32, :48], found[:32, 48:], found[50:, 60:] = 1, 5, VOID
    return found


def read(source, name: str) -> np.ndarray:
    picture, labels = open_dataset(str(source), 512).load(name)
    assert picture.size == SIZE and labels.dtype == np.uint8
    return labels


@pytest.mark.parametrize("as_colours", [False, True])
def test_pascal_voc_is_read_by_its_lists(tmp_path, save, truth, as_colours):
    for name in ("2007_000033", "2007_000042", "2007_000061"):
        save(f"JPEGImages/{name}.jpg")
        colours = voc_colours(256)
        pixels = colours[truth] if as_colours else truth
        save(f"SegmentationClass/{name}.png", pixels, None if as_colours else colours)
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000061\n2007_000033\n")
    (lists / "train.txt").write_text("2007_000042\n")
    dataset = open_dataset(str(tmp_path), 512)
    assert dataset.names == ("2007_000061", "2007_000033")
    assert open_dataset(f"{tmp_path}:train", 512).names == ("2007_000042",)
    np.testing.assert_array_equal(read(tmp_path, "2007_000033"), truth)
    words = vocabulary(dataset, None).words.names
    assert len(words) == 21 and words[1] == "aeroplane" and words[15] == "person" and words[20] == "tv monitor"


def test_msrcs_colours_are_classes_and_black_is_void(tmp_path, save):
    fields = {"building": (128, 0, 0), "sky": (128, 128, 128), "book": (128, 64, 0), "boat": (192, 64, 0)}
    colours = np.zeros((*SIZE[::-1], 3), np.uint8)
    for i, colour in enumerate(fields.values()):
        colours[16 * i : 16 * i + 16, 20:] = colour
    save("Images/1_1_s.bmp")
    save("GroundTruth/1_1_s_GT.bmp", colours)
    dataset = open_dataset(str(tmp_path), 512)
    assert dataset.names == ("1_1_s",) and len(vocabulary(dataset, None).words.groups) == 23
    labels = read(tmp_path, "1_1_s")
    assert (labels[:, :20] == VOID).all()
    assert [dataset.words[i] for i in labels[8::16, 50]] == [*fields]
    colours[3, 4] = 10, 20, 30
    save("GroundTruth/1_1_s_GT.bmp", colours)
    with pytest.raises(ValueError, match=r"GroundTruth/1_1_s_GT.bmp has the colour \(10, 20, 30\), which"):
        dataset.load("1_1_s")


def test_a_panoptic_segment_has_the_class_that_the_json_file_tells(tmp_path, save, truth):
    number = {0: 3_000_001, 1: 7, 5: 70_000, VOID: 0}  # of the segment in the place of each class
    numbers = np.vectorize(number.get)(truth)
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 256**2], 2).astype(np.uint8)
    save("val2017/000000000139.jpg")
    save("annotations/panoptic_val2017/000000000139.png", colours)
    categories = [{"id": i, "name": name} for i, name in ((1, "person"), (44, "bottle"), (200, "rug-merged"))]
    segments = [{"id": 3_000_001, "category_id": 44}, {"id": 7, "category_id": 200}, {"id": 70_000, "category_id": 1}]
    annotations = [{"file_name": "000000000139.png", "image_id": 139, "segments_info": segments}]
    with pytest.raises(ValueError, match="panoptic_val2017.json is missing"):
        open_dataset(str(tmp_path), 512)
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text('{"categories": [], "images": []}')
    with pytest.raises(ValueError, match="does not describe panoptic labels as COCO's does: KeyError"):
        open_dataset(str(tmp_path), 512)
    content = {"categories": categories, "annotations": annotations}
    (tmp_path / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    expected = np.select([truth == 0, truth == 1, truth == 5], [1, 2, 0], VOID)
    np.testing.assert_array_equal(read(tmp_path, "000000000139"), expected)
    dataset = open_dataset(f"{tmp_path}:val", 512)
    assert dataset.names == ("000000000139",) and dataset.words == ("person", "bottle", "rug-merged")


def test_coco_stuff_has_numbers(tmp_path, save, truth):
    save("images/train2017/9.jpg")
    save("annotations/train2017/9.png", truth)
    np.testing.assert_array_equal(read(f"{tmp_path}:train", "9"), truth)


def test_of_several_people_the_one_with_the_middle_number_of_regions_counts(tmp_path, save):
    few, middle = np.ones((2, *SIZE[::-1]), np.uint16)
    middle[:, :10], middle[:, 90:] = 3, 9
    many = np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[::-1]) // 20 + 1  # 308 regions
    cell = np.empty((1, 3), object)
    for i, regions in enumerate((many, few, middle)):
        cell[0, i] = {"Segmentation": regions, "Boundaries": np.zeros_like(regions, np.uint8)}
    save("images/test/2018.jpg")
    (tmp_path / "groundTruth" / "test").mkdir(parents=True)
    file = tmp_path / "groundTruth" / "test" / "2018.mat"
    savemat(file, {"groundTruth": cell})
    labels = read(tmp_path, "2018")
    assert (labels[:, 10:90] == 0).all() and (labels[:, :10] == 1).all() and (labels[:, 90:] == 2).all()
    savemat(file, {"groundTruth": cell[:, :1]})
    labels = read(tmp_path, "2018")
    assert len(np.unique(labels)) == 256 and (labels == VOID).sum() == (308 - 255) * 20 - 16  # the last has 4 pixels
    file.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="test/2018.mat is not one of BSDS500's files"):
        read(tmp_path, "2018")
    with pytest.raises(ValueError, match=r"neither scenes:FIRST..LAST nor a folder with images/ and labels/"):
        open_dataset(f"{tmp_path}:training", 512)
