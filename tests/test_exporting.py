"""What is in the zip, read back with other people's tools where there are any."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace
from zipfile import ZipFile

import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import quick
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import gaussian_filter

from emerdiff import Segmentation, Settings
from emerdiff.drawing import overlay, palette
from emerdiff.exporting import OPACITY, Legend, coco, cutout, export

K = 5
NAMES = ("../../etc/passwd", "<script>alert(1)</script>", "🌳 Bäume", "two\nlines", "")
HIDDEN, ABSENT = 1, 3
NAME = "C:\\fakepath\\Straße 🌳.jpg"


@pytest.fixture(scope="module")
def result(picture):
    """As from a run of the picture at 128 x 64, its difference maps smooth noise; segment 3 has no pixels."""
    generator = np.random.default_rng(0)
    differences = gaussian_filter(generator.random((K, 64, 128), np.float32), (0, 3, 3))
    differences[ABSENT] = 0
    coarse = generator.integers(0, K, (8, 16), np.int32)
    return Segmentation(
        image=np.asarray(picture.resize((128, 64))),
        coarse_labels=coarse,
        features=generator.random((8, 16, 4), np.float32),
        responses=np.repeat(differences[:, None], 3, axis=1).astype(np.float16),
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
    export(result, legend, picture, file, run={"picture": "Straße.jpg", "preset": "exact"}, name=NAME)
    assert [path.name for path in file.parent.iterdir()] == ["picture.zip"]
    with ZipFile(file) as archive:
        assert archive.testzip() is None
        yield archive


def stem_of(archive):
    """What all names in a zip begin with."""
    stem = archive.namelist()[0].removesuffix("_run.json")
    assert all(name.startswith(stem) for name in archive.namelist())
    return stem


def read(archive, ending):
    return archive.read(stem_of(archive) + ending)


def pixels(archive, ending, mode=None):
    with Image.open(io.BytesIO(read(archive, ending))) as image:
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


def test_members_are_named_by_the_picture_and_numbers_whatever_the_segments_are_called(archive, shown):
    stem = stem_of(archive)
    assert re.fullmatch(r"Straße 🌳-[0-9a-f]{6}", stem)
    pictures = [".png", "_overlay.png", "_labels.png", *(f"_segments/{i:02}.png" for i in shown)]
    assert archive.namelist() == [stem + ending for ending in ("_run.json", "_coco.json", ".npz", *pictures)]


def test_no_two_exports_fall_on_each_other(result, legend, picture, tmp_path):
    """Neither their files, where case does not count, nor the ids of their images and annotations."""
    others = replace(result, responses=result.responses[::-1].copy())
    exports = [  # what differs may be the name, only in what is stripped of others; the picture; or the labels
        *((result, picture, name) for name in ("a.png", "A.png", "a_overlay.png", "a_labels.jpg", "", "b" * 300)),
        *((result, picture, "b" * 300 + "c"),),
        (result, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "a.png"),
        (others, picture, "a.png"),
    ]
    members, images, annotations = [], [], []
    for number, (what, of, name) in enumerate(exports):
        export(what, legend, of, tmp_path / f"{number}.zip", run={}, name=name)
        with ZipFile(tmp_path / f"{number}.zip") as archive:
            members += map(str.casefold, archive.namelist())
            assert all(len(part.encode()) <= 255 for name in archive.namelist() for part in name.split("/"))
            dataset = json.loads(read(archive, "_coco.json"))
            assert dataset["images"][0]["file_name"] == stem_of(archive) + ".png"
        images += [image["id"] for image in dataset["images"]]
        annotations += [annotation["id"] for annotation in dataset["annotations"]]
    for distinct in (members, images, annotations):
        assert len(set(distinct)) == len(distinct)
    assert all(1 <= i < 2**31 for i in images) and max(annotations) < 2**53  # whole in any tool's numbers
    again = Legend(("renamed",) * K, palette(K)[::-1].copy())  # the same segments: takes the earlier export's place
    export(result, again, picture, tmp_path / "again.zip", run={"preset": "fast"}, name="a.png")
    with ZipFile(tmp_path / "0.zip") as first, ZipFile(tmp_path / "again.zip") as archive:
        assert stem_of(archive) == stem_of(first)


def test_the_picture_and_the_overlay_are_at_the_original_size(archive, result, legend, picture):
    np.testing.assert_array_equal(pixels(archive, ".png", "RGB"), picture)
    drawn = pixels(archive, "_overlay.png", "RGB")
    labels = result.labels_at_original_size
    np.testing.assert_array_equal(drawn, overlay(np.asarray(picture), labels, legend.colours, [0.6, 0, 0.6, 0.6, 0.6]))
    hidden = labels == HIDDEN
    assert OPACITY == 0.6 and hidden.any()
    np.testing.assert_array_equal(drawn[hidden], np.asarray(picture)[hidden])


def test_the_label_png_has_all_segments_hidden_ones_too(archive, result, legend):
    labels = pixels(archive, "_labels.png", "P")
    np.testing.assert_array_equal(labels, result.labels_at_original_size)
    assert HIDDEN in labels
    with Image.open(io.BytesIO(read(archive, "_labels.png"))) as image:
        np.testing.assert_array_equal(image.convert("RGB"), legend.colours[labels])


def test_cut_outs_put_back_at_their_boxes_are_the_picture(archive, shown, picture):
    boxes = {a["id"] % 256: a["bbox"] for a in json.loads(read(archive, "_coco.json"))["annotations"]}
    assert boxes.keys() == shown.keys()
    for i, mask in shown.items():
        rgba = pixels(archive, f"_segments/{i:02}.png", "RGBA")
        x, y, width, height = map(int, boxes[i])
        assert rgba.shape == (height, width, 4)
        whole = np.zeros((*mask.shape, 4), np.uint8)
        whole[y : y + height, x : x + width] = rgba
        np.testing.assert_array_equal(whole[..., 3], np.where(mask, 255, 0))
        np.testing.assert_array_equal(whole[..., :3], np.asarray(picture) * mask[..., None])  # nothing lies beneath


@pytest.fixture(scope="module")
def dataset(archive):
    """The annotations as pycocotools has them, which prints."""
    dataset = COCO()
    dataset.dataset = json.loads(read(archive, "_coco.json"))
    with redirect_stdout(io.StringIO()):
        dataset.createIndex()
    return dataset


def test_coco_reads_the_annotations_and_its_masks_are_the_segments(archive, dataset, shown, picture):
    (image,) = dataset.loadImgs(dataset.getImgIds())
    assert (image["file_name"], image["width"], image["height"]) == (stem_of(archive) + ".png", *picture.size)
    names = ["../../etc/passwd", "<script>alert(1)</script>", "🌳 Bäume", "two lines", "Unnamed segment 4"]
    assert [c["name"] for c in dataset.loadCats(range(1, K + 1))] == names
    assert dataset.getAnnIds(imgIds=image["id"], iscrowd=False) == [256 * image["id"] + i for i in shown]
    for i, mask in shown.items():
        (annotation,) = dataset.loadAnns(dataset.getAnnIds(catIds=[i + 1]))
        np.testing.assert_array_equal(dataset.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum() and isinstance(annotation["segmentation"]["counts"], str)
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        left, top = columns[0], rows[0]
        assert annotation["bbox"] == [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
    assert sum(a["area"] for a in dataset.anns.values()) == sum(mask.sum() for mask in shown.values())


def test_pycocotools_tells_draws_loads_as_results_and_scores_the_annotations(dataset, shown):
    plt.switch_backend("Agg")
    results = [{k: a[k] for k in ("image_id", "category_id", "segmentation")} for a in dataset.anns.values()]
    with redirect_stdout(io.StringIO()) as out:
        dataset.info()
        dataset.showAnns(list(dataset.anns.values()), draw_bbox=True)
        found = dataset.loadRes([r | {"score": 1.0} for r in results])
        for kind in ("segm", "bbox"):
            judge = COCOeval(dataset, found, kind)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
            assert judge.stats[0] == pytest.approx(1)  # average precision, over the categories that have annotations
    plt.close()
    assert "contributor: EmerDiff Explorer" in out.getvalue() and len(found.anns) == len(shown)


SECTIONS = {  # as https://cocodataset.org/#format-data has them
    "info": {"year": int, "version": str, "description": str, "contributor": str, "url": str, "date_created": str},
    "licenses": {"id": int, "name": str, "url": str},
    "images": {"id": int, "width": int, "height": int, "file_name": str, "license": int, "flickr_url": str}
    | {"coco_url": str, "date_captured": str},
    "annotations": {"id": int, "image_id": int, "category_id": int, "segmentation": dict, "area": float}
    | {"bbox": list, "iscrowd": int},
    "categories": {"id": int, "name": str, "supercategory": str},
}


def test_all_sections_and_fields_of_the_format_are_there_in_its_types(archive):
    text = read(archive, "_coco.json")
    assert text.isascii()  # tools open it in the encoding of their machine
    dataset = json.loads(text)
    assert list(dataset) == list(SECTIONS)
    for name, fields in SECTIONS.items():
        for entry in [dataset[name]] if name == "info" else dataset[name]:
            assert {key: type(value) for key, value in entry.items()} == fields and list(entry) == list(fields)
    assert {type(number) for a in dataset["annotations"] for number in a["bbox"]} == {float}
    assert {image["license"] for image in dataset["images"]} == {x["id"] for x in dataset["licenses"]}


def test_the_arrays_are_the_results_and_the_settings_can_be_used_again(archive, result):
    with np.load(io.BytesIO(read(archive, ".npz"))) as arrays:
        for name in ("labels", "coarse_labels", "naive_labels"):
            np.testing.assert_array_equal(arrays[name], getattr(result, name))
        np.testing.assert_array_equal(arrays["labels_original"], result.labels_at_original_size)
        assert arrays["labels"].dtype == arrays["labels_original"].dtype == np.uint8
        assert arrays["confidence"].dtype == np.float16
        np.testing.assert_allclose(arrays["confidence"], result.confidence, atol=5e-4)
        assert tuple(arrays["names"]) == NAMES
        assert Settings(**json.loads(str(arrays["settings"]))) == result.settings


def test_the_run_is_told_in_readable_json(archive, result):
    text = read(archive, "_run.json").decode()
    assert "Straße" in text and "🌳 Bäume" in text and text.count("\n") > 20
    run = json.loads(text)
    assert run["picture"] == "Straße.jpg" and tuple(run["names"]) == NAMES and run["hidden"] == [HIDDEN]
    assert Settings(**run["settings"]) == result.settings
    assert run.items() >= json.loads(json.dumps(result.summary())).items()


def test_the_same_input_gives_the_same_bytes(result, legend, picture, tmp_path):
    for name in ("one.zip", "two.zip"):
        export(result, legend, picture, tmp_path / name, run={})
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with ZipFile(tmp_path / "one.zip") as archive:
        for file in (tmp_path / "one.zip", io.BytesIO(read(archive, ".npz"))):
            assert {member.date_time[0] for member in ZipFile(file).infolist()} == {1980}  # no clock comes in
        assert json.loads(read(archive, "_coco.json"))["info"]["year"] == 1980


def test_what_the_pictures_file_knew_stays_behind(result, legend, picture, tmp_path):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 0.0)}  # where it was taken
    picture.save(file, "PNG", exif=exif, icc_profile=b"profile")
    export(result, legend, Image.open(file), tmp_path / "a.zip", run={})
    assert Image.open(file).info.keys() >= {"exif", "icc_profile"}
    with ZipFile(tmp_path / "a.zip") as archive:
        assert not Image.open(io.BytesIO(read(archive, ".png"))).info


def test_all_may_be_hidden(result, picture, tmp_path):
    export(result, Legend(NAMES, palette(K), frozenset(range(K))), picture, tmp_path / "a.zip", run={})
    with ZipFile(tmp_path / "a.zip") as archive:
        assert not [name for name in archive.namelist() if "segments" in name]
        dataset = json.loads(read(archive, "_coco.json"))
        assert dataset["annotations"] == [] and len(dataset["categories"]) == K
        np.testing.assert_array_equal(pixels(archive, "_overlay.png"), picture)


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
    dataset = coco(labels, Legend(("",) * 256, palette(256)), file_name="a.png", image_id=7)
    assert json.loads(json.dumps(dataset)) == dataset
    (image,) = dataset["images"]
    assert image.items() >= {"id": 7, "file_name": "a.png", "width": 30, "height": 40}.items()
    assert len({category["name"] for category in dataset["categories"]}) == 256
    decoded = np.full(labels.shape, -1)
    for annotation in dataset["annotations"]:
        decoded[rle.decode(annotation["segmentation"]).astype(bool)] = annotation["id"] - 7 * 256
        assert annotation["category_id"] == annotation["id"] - 7 * 256 + 1
    np.testing.assert_array_equal(decoded, labels)


@pytest.mark.parametrize(
    "names, numbers, categories",
    [
        (("sky", "sky", "tree"), [1, 1, 2], ["sky", "tree"]),
        (("sky", " sky\t", "\u200esky\n"), [1, 1, 1], ["sky"]),  # what cannot be seen
        (("big tree", "big  tree", "big\u00a0\ntree"), [1, 1, 1], ["big tree"]),  # white space of any kind
        (("caf\u00e9", "cafe\u0301", "cafe"), [1, 1, 2], ["caf\u00e9", "cafe"]),  # composed or not
        (("Sky", "sky", "SKY"), [1, 2, 3], ["Sky", "sky", "SKY"]),  # may be meant
        (("", " \u200b", ""), [1, 2, 3], ["Unnamed segment 0", "Unnamed segment 1", "Unnamed segment 2"]),
        (("", "Segment 0", "sky"), [1, 2, 3], ["Unnamed segment 0", "Segment 0", "sky"]),
        (("b", "a", "b"), [1, 2, 1], ["b", "a"]),  # in the order of the segments
        (("bell\a", "esc\x1b[31m", "bell"), [1, 2, 1], ["bell", "esc[31m"]),  # XML has no controls
    ],
)
def test_segments_whose_names_read_the_same_are_of_one_category(names, numbers, categories):
    labels = np.arange(3).repeat(4).reshape(3, 4)
    for hidden in (frozenset(), frozenset({1})):  # hiding one changes no other's category
        dataset = coco(labels, Legend(names, palette(3), hidden), file_name="a.png", image_id=1)
        visible = [number for i, number in enumerate(numbers) if i not in hidden]
        assert [a["category_id"] for a in dataset["annotations"]] == visible
        assert [(c["id"], c["name"]) for c in dataset["categories"]] == list(enumerate(categories, 1))
