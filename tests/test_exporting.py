"""What is in the zip, read back with other people's tools where there are any."""

import io
import json
from contextlib import redirect_stdout
from zipfile import ZipFile

import numpy as np
import pytest
from conftest import quick
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from scipy.ndimage import gaussian_filter

from emerdiff import Segmentation, Settings
from emerdiff.drawing import overlay, palette
from emerdiff.exporting import OPACITY, Legend, coco, cutout, export
from emerdiff.masks import label, upsample_naive

K = 5
NAMES = ("../../etc/passwd", "<script>alert(1)</script>", "🌳 Bäume", "two\nlines", "")
HIDDEN, ABSENT = 1, 3


@pytest.fixture(scope="module")
def result(picture):
    """As from a run of the picture at 128 x 64, its difference maps smooth noise; segment 3 has no pixels."""
    generator = np.random.default_rng(0)
    differences = gaussian_filter(generator.random((K, 64, 128), np.float32), (0, 3, 3))
    differences[ABSENT] = 0
    labels, confidence = label(differences)
    coarse = generator.integers(0, K, (8, 16), np.int32)
    return Segmentation(
        image=np.asarray(picture.resize((128, 64))),
        labels=labels,
        coarse_labels=coarse,
        features=generator.random((8, 16, 4), np.float32),
        responses=generator.random((K, 3, 64, 128), np.float32).astype(np.float16),
        differences=differences,
        naive_labels=upsample_naive(coarse, K, (64, 128)),
        confidence=confidence,
        original_size=picture.size,
        settings=quick(num_segments=K, image_area=128 * 64, strength=2.5),
        model="miniature",
        notes=("A note.",),
    )


@pytest.fixture(scope="module")
def legend():
    return Legend(NAMES, palette(K), frozenset({HIDDEN}))


@pytest.fixture(scope="module")
def archive(result, legend, picture, tmp_path_factory):
    file = tmp_path_factory.mktemp("export") / "picture.zip"
    export(result, legend, picture, file, run={"picture": "Straße.jpg", "preset": "exact"})
    assert [path.name for path in file.parent.iterdir()] == ["picture.zip"]
    with ZipFile(file) as archive:
        assert archive.testzip() is None
        yield archive


def pixels(archive, name, mode=None):
    with Image.open(io.BytesIO(archive.read(name))) as image:
        assert image.format == "PNG" and (mode is None or image.mode == mode)
        return np.asarray(image)


@pytest.fixture(scope="module")
def shown(result):
    """Segments that can be seen, by number: their pixels at the original size."""
    labels = result.labels_at_original_size
    present = set(np.unique(labels)) - {HIDDEN}
    assert present == set(range(K)) - {HIDDEN, ABSENT}  # or else the tests below say little
    return {int(i): labels == i for i in sorted(present)}


# --- The zip


def test_members_are_named_by_numbers_whatever_the_segments_are_called(archive, shown):
    pictures = ["picture.png", "overlay.png", "labels.png", *(f"segments/{i:02}.png" for i in shown)]
    assert archive.namelist() == ["run.json", "annotations.json", "segmentation.npz", *pictures]


def test_the_picture_and_the_overlay_are_at_the_original_size(archive, result, legend, picture):
    np.testing.assert_array_equal(pixels(archive, "picture.png", "RGB"), picture)
    drawn = pixels(archive, "overlay.png", "RGB")
    labels = result.labels_at_original_size
    np.testing.assert_array_equal(drawn, overlay(np.asarray(picture), labels, legend.colours, [0.6, 0, 0.6, 0.6, 0.6]))
    hidden = labels == HIDDEN
    assert OPACITY == 0.6 and hidden.any()
    np.testing.assert_array_equal(drawn[hidden], np.asarray(picture)[hidden])


def test_the_label_png_has_all_segments_hidden_ones_too(archive, result, legend):
    labels = pixels(archive, "labels.png", "P")
    np.testing.assert_array_equal(labels, result.labels_at_original_size)
    assert HIDDEN in labels
    with Image.open(io.BytesIO(archive.read("labels.png"))) as image:
        np.testing.assert_array_equal(image.convert("RGB"), legend.colours[labels])


def test_cut_outs_put_back_at_their_boxes_are_the_picture(archive, shown, picture):
    boxes = {a["category_id"] - 1: a["bbox"] for a in json.loads(archive.read("annotations.json"))["annotations"]}
    assert boxes.keys() == shown.keys()
    for i, mask in shown.items():
        rgba = pixels(archive, f"segments/{i:02}.png", "RGBA")
        x, y, width, height = map(int, boxes[i])
        assert rgba.shape == (height, width, 4)
        whole = np.zeros((*mask.shape, 4), np.uint8)
        whole[y : y + height, x : x + width] = rgba
        np.testing.assert_array_equal(whole[..., 3], np.where(mask, 255, 0))
        np.testing.assert_array_equal(whole[..., :3], np.asarray(picture) * mask[..., None])  # nothing lies beneath


def test_coco_reads_the_annotations_and_its_masks_are_the_segments(archive, shown, picture):
    annotations = json.loads(archive.read("annotations.json"))
    dataset = COCO()
    dataset.dataset = annotations
    with redirect_stdout(io.StringIO()):
        dataset.createIndex()
    (image,) = dataset.loadImgs(dataset.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == ("picture.png", *picture.size)
    assert [c["name"] for c in dataset.loadCats(range(1, K + 1))] == list(NAMES)
    assert dataset.getAnnIds(imgIds=image["id"], iscrowd=False) == [1, 2, 3]
    for i, mask in shown.items():
        (annotation,) = dataset.loadAnns(dataset.getAnnIds(catIds=[i + 1]))
        np.testing.assert_array_equal(dataset.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum() and isinstance(annotation["segmentation"]["counts"], str)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        left, top = columns[0], rows[0]
        assert annotation["bbox"] == [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
    assert sum(a["area"] for a in annotations["annotations"]) == sum(mask.sum() for mask in shown.values())


def test_the_arrays_are_the_results_and_the_settings_can_be_used_again(archive, result):
    with np.load(io.BytesIO(archive.read("segmentation.npz"))) as arrays:
        for name in ("labels", "coarse_labels", "naive_labels"):
            np.testing.assert_array_equal(arrays[name], getattr(result, name))
        np.testing.assert_array_equal(arrays["labels_original"], result.labels_at_original_size)
        assert arrays["labels"].dtype == arrays["labels_original"].dtype == np.uint8
        assert arrays["confidence"].dtype == np.float16
        np.testing.assert_allclose(arrays["confidence"], result.confidence, atol=5e-4)
        assert tuple(arrays["names"]) == NAMES
        assert Settings(**json.loads(str(arrays["settings"]))) == result.settings


def test_the_run_is_told_in_readable_json(archive, result):
    text = archive.read("run.json").decode()
    assert "Straße" in text and "🌳 Bäume" in text and text.count("\n") > 20
    run = json.loads(text)
    assert run["picture"] == "Straße.jpg" and tuple(run["names"]) == NAMES and run["hidden"] == [HIDDEN]
    assert Settings(**run["settings"]) == result.settings
    assert run.items() >= json.loads(json.dumps(result.summary())).items()


def test_the_same_input_gives_the_same_bytes(result, legend, picture, tmp_path):
    for name in ("one.zip", "two.zip"):
        export(result, legend, picture, tmp_path / name, run={})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    for file in (tmp_path / "one.zip", io.BytesIO(ZipFile(tmp_path / "one.zip").read("segmentation.npz"))):
        assert {member.date_time[0] for member in ZipFile(file).infolist()} == {1980}  # no clock comes in


def test_what_the_pictures_file_knew_stays_behind(result, legend, picture, tmp_path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}  # where it was taken
    picture.save(file, "PNG", exif=exif, icc_profile=b"profile")
    export(result, legend, Image.open(file), tmp_path / "a.zip", run={})
    assert Image.open(file).info.keys() >= {"exif", "icc_profile"}
    with ZipFile(tmp_path / "a.zip") as archive:
        assert not Image.open(io.BytesIO(archive.read("picture.png"))).info


def test_all_may_be_hidden(result, picture, tmp_path):
    export(result, Legend(NAMES, palette(K), frozenset(range(K))), picture, tmp_path / "a.zip", run={})
    with ZipFile(tmp_path / "a.zip") as archive:
        assert not [name for name in archive.namelist() if name.startswith("segments")]
        assert json.loads(archive.read("annotations.json"))["annotations"] == []
        np.testing.assert_array_equal(pixels(archive, "overlay.png"), picture)


# --- What is refused


def test_a_picture_of_another_size_is_refused_and_no_file_left(result, legend, picture, tmp_path):
    with pytest.raises(ValueError, match="192 x 128 pixels, not 128 x 192"):
        export(result, legend, picture.transpose(Image.Transpose.ROTATE_90), tmp_path / "a.zip", run={})
    assert not list(tmp_path.iterdir())


def test_a_legend_for_another_number_of_segments_is_refused(result, picture, tmp_path):
    with pytest.raises(ValueError, match="5 segments need as many names, not 4"):
        export(result, Legend(NAMES[:4], palette(4)), picture, tmp_path / "a.zip", run={})
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_file_as_it_was(result, legend, picture, tmp_path):
    file = tmp_path / "a.zip"
    file.write_bytes(b"earlier")
    with pytest.raises(ValueError, match="JSON"):
        export(result, legend, picture, file, run={"seconds": float("nan")})
    assert file.read_bytes() == b"earlier" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["a" * 81, "half \ud83d", "nul \0", None, 3])
def test_a_name_that_is_not_allowed_is_refused(name):
    with pytest.raises(ValueError, match="at most 80 characters"):
        Legend(("a" * 80, name), palette(2))


def test_a_legend_has_as_many_names_as_colours_and_hides_only_what_there_is():
    for colours in (palette(3), palette(2).astype(float)):
        with pytest.raises(ValueError, match=r"must be \(2, 3\) uint8, one for each of 2 names, not \(\d, 3\)"):
            Legend(("a", "b"), colours)
    with pytest.raises(ValueError, match=r"from 0 to 1, not \[2\]"):
        Legend(("a", "b"), palette(2), frozenset({0, 2}))


# --- The parts by themselves


def test_a_cut_out_is_as_small_as_its_mask():
    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    mask = np.zeros((4, 5), bool)
    mask[1, 2] = mask[2, 4] = True
    rgba = np.asarray(cutout(picture, mask))
    assert rgba.shape == (2, 3, 4)
    assert rgba[0, 0].tolist() == [*picture[1, 2], 255] and rgba[1, 2].tolist() == [*picture[2, 4], 255]
    assert np.count_nonzero(rgba.any(2)) == 2
    with pytest.raises(ValueError, match="no pixels"):
        cutout(picture, np.zeros((4, 5), bool))


def test_annotations_of_any_labels_are_plain_and_decode():
    labels = np.random.default_rng(0).integers(0, 256, (40, 30))
    annotations = coco(labels, Legend(("",) * 256, palette(256)), "a.png")
    assert json.loads(json.dumps(annotations)) == annotations
    assert annotations["images"] == [{"id": 1, "file_name": "a.png", "width": 30, "height": 40}]
    decoded = np.full(labels.shape, -1)
    for annotation in annotations["annotations"]:
        decoded[rle.decode(annotation["segmentation"]).astype(bool)] = annotation["category_id"] - 1
    np.testing.assert_array_equal(decoded, labels)
