"""From a folder to a dataset: every format is read by the tools it is for, and runs can be killed and shared."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import quick
from PIL import Image
from pycocotools.coco import COCO

from emerdiff.__main__ import main
from emerdiff.dataset import folder as folders
from emerdiff.dataset import run as runs
from emerdiff.dataset.commands import _Hourly, segment_all
from emerdiff.dataset.formats import FORMATS
from emerdiff.dataset.labelled import Labelled
from emerdiff.dataset.named import Named
from emerdiff.dataset.pictures import find, identify
from emerdiff.dataset.run import Share, Wanted
from emerdiff.miniature.scenes import draw_scene
from emerdiff.segmentation import Segmentation

VOID = 255
EVERYTHING = Wanted(quick(smoothing=3), tuple(FORMATS), min_confidence=0.3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with three pictures: one below another, one turned by EXIF, one with a long name beyond ASCII."""
    folder = tmp_path_factory.mktemp("pictures")
    names = ("plain.png", "turned.jpg", f"below/{'東京 ' * 20}🌳.png")
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        picture = Image.fromarray(np.ascontiguousarray(draw_scene(seed, 160).image[:128]))
        exif = Image.Exif()
        exif[0x0112] = 6 if name == "turned.jpg" else 1
        picture.save(folder / name, exif=exif)
    return folder


@pytest.fixture(scope="module")
def dataset(small, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("dataset")
    assert segment_all(small, EVERYTHING, find([str(pictures)], out), out) == 0
    return out


@pytest.fixture(scope="module")
def truth(dataset):
    """The label PNGs (height, width) by stem."""
    found = {path.name.removesuffix("_labels.png"): path for path in sorted(dataset.glob("*_labels.png"))}
    labels = {stem: np.asarray(Image.open(path)) for stem, path in found.items()}
    assert len(labels) == 3 and {labels[stem].shape for stem in labels} == {(128, 160), (160, 128)}
    assert any((of == VOID).any() for of in labels.values())  # or else the tests below say little
    return labels


def masks(labels: np.ndarray) -> list[np.ndarray]:
    return [labels == i for i in np.unique(labels) if i != VOID]


def agree(found, expected, *, large: float = 0.01, least: float = 0.97) -> None:
    """Whether masks are alike where they are large; there must be one for each that is expected."""
    for mine, true in zip(found, expected, strict=True):
        if true.mean() > large:
            assert (mine & true).sum() / (mine | true).sum() >= least


# --- Other people's readers


def test_pycocotools_reads_runs_and_polygons(dataset, truth):
    exact, outlined = (COCO(dataset / "coco" / f"{name}.json") for name in ("annotations", "polygons"))
    assert [image["file_name"].rsplit(".")[0] for image in exact.dataset["images"]] == list(truth)
    for image in exact.dataset["images"]:
        expected = masks(truth[image["file_name"].rsplit(".")[0]])
        of_image = [coco.loadAnns(coco.getAnnIds(image["id"])) for coco in (exact, outlined)]
        found, polygons = ([exact.annToMask(one).astype(bool) for one in anns] for anns in of_image)
        np.testing.assert_array_equal(found, expected)
        agree(polygons, expected)
        assert [one["area"] for one in of_image[1]] == [mask.sum() for mask in expected]
        assert Image.open(dataset / "coco" / "images" / image["file_name"]).size == (image["width"], image["height"])
    ids = [one["id"] for one in exact.dataset["annotations"]]
    assert ids == list(range(1, len(ids) + 1))


def test_supervision_reads_coco_and_yolo(dataset, truth):
    import supervision as sv

    coco = sv.DetectionDataset.from_coco(
        str(dataset / "coco" / "images"), str(dataset / "coco" / "annotations.json"), force_masks=True
    )
    yolo = sv.DetectionDataset.from_yolo(
        *(str(dataset / "yolo-seg" / name) for name in ("images", "labels", "data.yaml")), force_masks=True
    )
    assert coco.classes == yolo.classes == ["segment"] and len(coco) == len(yolo) == 3
    for path, _, detections in coco:
        np.testing.assert_array_equal(detections.mask, masks(truth[Path(path).stem]))
    for path, picture, detections in yolo:
        expected = masks(truth[Path(path).stem])
        assert picture.shape[:2] == expected[0].shape
        parts = [np.zeros_like(mask) for mask in expected]  # of the segment that each connected part mostly covers
        for part in detections.mask:
            parts[np.argmax([(part & mask).sum() for mask in expected])] |= part
        agree(parts, expected)


def test_datumaro_reads_cvats_masks(dataset, truth):
    import datumaro

    read = datumaro.Dataset.import_from(str(dataset / "cvat"), "voc_segmentation")
    labels = read.categories()[datumaro.AnnotationType.label]
    assert {item.id for item in read} == set(truth)
    for item in read:
        expected = masks(truth[item.id])
        found = sorted(item.annotations, key=lambda one: one.group)
        np.testing.assert_array_equal([one.image.astype(bool) for one in found], expected)
        assert {labels[one.label].name for one in found} == {"segment"}
        assert item.media.data.shape[:2] == expected[0].shape


def test_label_studios_brush_is_decoded(dataset, truth):
    from label_studio_converter import brush

    tasks = json.loads((dataset / "label-studio" / "tasks.json").read_text())
    assert len(tasks) == 3
    for task, labels in zip(tasks, truth.values(), strict=True):
        regions = [one | one["value"] for one in task["predictions"][0]["result"]]
        layers = brush.decode_from_annotation("label", regions)
        np.testing.assert_array_equal([*layers.values()], [255 * mask for mask in masks(labels)])
        assert {one["from_name"] for one in regions} == {"label"} and all(0.3 <= one["score"] <= 1 for one in regions)
    assert '<Label value="segment"/>' in (dataset / "label-studio" / "labelling.xml").read_text()


def test_the_datasets_library_reads_pictures_and_masks(dataset, truth, tmp_path):
    import datasets

    read = datasets.load_dataset("imagefolder", data_dir=str(dataset / "imagefolder"), cache_dir=str(tmp_path))
    assert read["train"].column_names == ["image", "mask", "picture", "segments", "classes"]
    for row, labels in zip(read["train"], truth.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(row["mask"]), labels)
        assert row["image"].size == row["mask"].size and set(row["segments"]) == set(np.unique(labels)) - {VOID}


def test_arrays_and_the_summary_say_the_same(dataset, truth):
    for stem, labels in truth.items():
        with np.load(dataset / "npz" / f"{stem}.npz") as arrays:
            np.testing.assert_array_equal(arrays["labels"], labels)
            assert arrays["features"].shape[:2] == arrays["coarse_labels"].shape
            assert arrays["naive_labels"].shape == labels.shape and arrays["confidence"].dtype == np.float16
        segments = json.loads((dataset / f"{stem}.json").read_text())["segments"]
        kept = [one["segment"] for one in segments if (one["mean_confidence"] or 0) >= 0.3]
        assert kept == [i for i in np.unique(labels).tolist() if i != VOID]


@pytest.fixture(scope="module")
def named(small, tmp_path_factory):
    """A dataset of one picture with as many segments as there can be, which have three classes."""
    out, names = tmp_path_factory.mktemp("named"), ("tree", "car & cart", "sky")
    labels = np.kron(np.arange(256).reshape(128, 2), np.ones((2, 128))).astype(np.uint8)  # strips; 255 is void
    result = small(Image.fromarray(draw_scene(3, 128).image), quick())
    of = tuple(i % 3 for i in range(255))
    one = Labelled("a.png", "a", "a.png", labels, of, ({},) * 255, (0.5,) * 255, result)
    folders.claim(out, {})
    kinds = [kind for name, kind in FORMATS.items() if name != "png"]  # whose JSON file needs a result of that size
    files = {name: content for kind in kinds for name, content in kind.files(one, names).items()}
    Image.fromarray(labels).save(stream := io.BytesIO(), "PNG")
    entry = folders.Entry("a.png", "a", "0", "a.png", 256, 256)
    folders.put(out, entry, files, [kind.images for kind in kinds if kind.images], stream.getvalue())
    wholes = (whole for kind in kinds for whole in kind.wholes(out, [entry], names))
    folders.finish(out, wholes, {})
    return out, names, labels


def test_classes_are_those_of_the_names(named):
    import datumaro
    import supervision as sv

    out, names, labels = named
    coco = COCO(out / "coco" / "annotations.json")
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == list(names)
    assert [one["category_id"] - 1 for one in coco.dataset["annotations"]] == [i % 3 for i in range(255)]
    read = datumaro.Dataset.import_from(str(out / "cvat"), "voc_segmentation")
    known = read.categories()[datumaro.AnnotationType.label]
    masks = {one.group - 1: one for item in read for one in item.annotations}
    assert {i: known[one.label].name for i, one in masks.items()} == {i: names[i % 3] for i in range(255)}
    assert all((one.image == (labels == i)).all() for i, one in masks.items())
    folder = out / "yolo-seg"
    yolo = sv.DetectionDataset.from_yolo(*(str(folder / name) for name in ("images", "labels", "data.yaml")))
    lines = (folder / "labels" / "a.txt").read_text().splitlines()
    assert yolo.classes == list(names) and [int(line.split()[0]) for line in lines] == [i % 3 for i in range(255)]
    (task,) = json.loads((out / "label-studio" / "tasks.json").read_text())
    given = [one["value"]["brushlabels"] for one in task["predictions"][0]["result"]]
    assert given == [[names[i % 3]] for i in range(255)]
    assert '<Label value="car &amp; cart"/>' in (out / "label-studio" / "labelling.xml").read_text()
    line = json.loads((out / "imagefolder" / "metadata.jsonl").read_text())
    assert line["classes"] == [names[i % 3] for i in range(255)] and line["segments"] == list(range(255))


def two_classes(result: Segmentation) -> Named:
    return Named(result, [int(i > 1) for i in range(4)], ({},) * 4)


def test_a_run_asks_for_each_segments_class(small, tmp_path):
    work, out = small_pictures(tmp_path / "work", 1), tmp_path / "out"
    classes = ("bird", "cloud")
    wanted = Wanted(quick(), ("imagefolder",), classes=classes, name=two_classes)
    assert segment_all(small, wanted, find([str(work)], out), out) == 0
    line = json.loads((out / "imagefolder" / "metadata.jsonl").read_text())
    assert line["segments"] and line["classes"] == [classes[i > 1] for i in line["segments"]]
    assert json.loads((out / "manifest.json").read_text())["classes"] == [*classes]


def test_each_picture_may_have_its_own_number_of_segments(capsys, small, pictures, tmp_path):
    settings, out = quick(num_segments="auto", merge_height=0.9, two_sided=False, replay_steps=1), tmp_path / "out"
    assert segment_all(small, Wanted(settings, tuple(FORMATS)), find([str(pictures)], out), out) == 0
    told, coco = capsys.readouterr().err, COCO(out / "coco" / "annotations.json")
    lines = [json.loads(line) for line in (out / "imagefolder" / "metadata.jsonl").read_text().splitlines()]
    tasks = json.loads((out / "label-studio" / "tasks.json").read_text())
    numbers = set()
    for image, line, task in zip(coco.dataset["images"], lines, tasks, strict=True):
        stem = line["mask_file_name"][6:-4]
        summary = json.loads((out / f"{stem}.json").read_text())
        k, shares = summary["settings"]["num_segments"], [one["share"] for one in summary["segments"]]
        assert f": The number of segments, {k}, follows from the picture: 30 were found" in told and len(shares) == k
        labels = np.asarray(Image.open(out / f"{stem}_labels.png"))
        shown = np.unique(labels).tolist()
        assert line["segments"] == shown and line["classes"] == ["segment"] * len(shown) and shown[-1] < k
        assert len(coco.getAnnIds(image["id"])) == len(task["predictions"][0]["result"]) == len(shown)
        objects = np.asarray(Image.open(out / "cvat" / "SegmentationObject" / f"{stem}.png"))
        np.testing.assert_array_equal(objects, labels + 1)
        polygons = (out / "yolo-seg" / "labels" / f"{stem}.txt").read_text().splitlines()
        assert {polygon.split()[0] for polygon in polygons} == {"0"}
        with np.load(out / "npz" / f"{stem}.npz") as arrays:
            assert arrays["names"].tolist() == ["segment"] * k and arrays["coarse_labels"].max() == k - 1
        numbers.add(k)
    assert len(numbers) > 1  # and yet there is one class in each list of classes
    assert [one["name"] for one in coco.dataset["categories"]] == ["segment"]
    assert len((out / "cvat" / "labelmap.txt").read_text().splitlines()) == 3  # a head, background, and segment
    assert (out / "yolo-seg" / "data.yaml").read_text().endswith('names:\n  0: "segment"\n')
    assert (out / "label-studio" / "labelling.xml").read_text().count("<Label ") == 1
    assert json.loads((out / "manifest.json").read_text())["settings"]["num_segments"] == "auto"
    for other in ({"num_segments": 4}, {"merge_height": 0.8}):
        with pytest.raises(ValueError, match="holds a run with (num_segments auto|merge_height 0.9): choose another"):
            segment_all(small, Wanted(replace(settings, **other), tuple(FORMATS)), find([str(pictures)], out), out)


# --- Which pictures


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder to be in, with small files: what is in them does not matter here, except that some are twins."""
    monkeypatch.chdir(tmp_path)
    for name in ("b/x.png", "a/x.png", "a/x.jpg", "a/deep/X.PNG", "a/twin.webp", "a/.hidden.png", "a/notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("x.jpg" if "twin" in name else Path(name).as_posix()[2:])
    Path("b/x.png").write_text("another")
    Path("a/.git").mkdir()
    shutil.copy("a/x.png", "a/.git/y.png")
    Path("a/out").mkdir()
    shutil.copy("a/x.png", "a/out/y.png")
    Path("empty").mkdir()
    Path("list.txt").write_text("b\n\na/x.png\ngone.png\n")
    Path("blank.txt").write_text("\n \n")
    return tmp_path


def test_folders_and_lists_are_read_in_order_and_names_stay_apart(places):
    sources = identify(find(["a", "@list.txt", "empty", ""], Path("a/out")))
    assert [(one.name, one.stem, one.twin or one.fault) for one in sources] == [
        ("twin.webp", "twin", ""),
        ("x.jpg", "x_jpg", "twin.webp"),
        ("x.png", "002_x_png", ""),
        ("deep/X.PNG", "deep_X", ""),
        ("x.png", "004_x_png", ""),
        ("gone.png", "gone", "it cannot be read: No such file or directory"),
        ("empty", "empty", "there is no picture in this folder"),
        ("", "picture", "this name is empty"),
    ]
    for word, said in (("@nowhere.txt", "nowhere.txt cannot be read: No such"), ("@blank.txt", "blank.txt is empty")):
        with pytest.raises(ValueError, match=said):
            find([word], Path("out"))


def test_a_folder_that_cannot_be_read_is_a_failure_and_the_others_are_read(places, monkeypatch):
    scan = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("deep"):  # which permissions cannot do to root
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert [(one.name, one.fault) for one in find(["a/deep", "b"], Path("out"))] == [
        ("deep", "it cannot be read: Permission denied"),
        ("x.png", ""),
    ]


def test_a_picture_that_is_done_keeps_its_name_whatever_comes_later(places):
    (first,) = identify(find(["b"], Path("out")))
    done = [folders.Entry(first.name, first.stem, first.digest, "", 1, 1)]
    later = identify(find(["a/x.png", "a/x.jpg", "b/x.png"], Path("out")), done)
    assert first.stem == "x" and [one.stem for one in later] == ["000_x_png", "x_jpg", "x"]
    Path("a/x.jpg").write_text("another")
    assert identify(find(["a/x.jpg"], Path("out")), done)[0].twin == "x.png"


def test_shares_have_all_pictures_between_them():
    pictures = list(range(23))
    for shares in ([Share(i, 4) for i in range(4)], [Share(1, 2).split(i, 3) for i in range(3)] + [Share(0, 2)]):
        assert sorted(number for share in shares for number in share.of(pictures)) == pictures


@pytest.mark.parametrize(
    "options, said",
    [
        (["--shard", "0/4"], "must be I/N with I from 1 to N, as in 1/4, not '0/4'"),
        (["--shard", "5/4"], "must be I/N"),
        (["--shard", "1"], "must be I/N"),
        (["--format", "bmp"], "invalid choice: 'bmp'"),
        (["--min-confidence", "much"], "invalid float value: 'much'"),
    ],
)
def test_options_that_do_not_fit_give_status_2(capsys, options, said):
    with pytest.raises(SystemExit) as end:
        main(["segment", "a.png", "--out", "out", *options])
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_what_cannot_be_made_is_refused():
    for settings, changes, said in (
        (quick(num_segments=256), {}, "num_segments must be at most 255 here, as 255 stands for void"),
        (quick(), {"min_confidence": float("nan")}, "--min-confidence must be from 0 to 1, not nan"),
        (quick(), {"formats": ("voc",)}, "--format must be among png, .*, not 'voc'"),
        (quick(), {"formats": ("cvat",), "classes": ("a:b",)}, "cannot hold a word with a colon: 'a:b'"),
        (quick(), {"formats": ("cvat",), "classes": ("a",) * 255}, "can tell 254 classes apart, not 255"),
    ):
        with pytest.raises(ValueError, match=said):
            Wanted(settings, **changes)


# --- Runs


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_reports_twins_and_failures_and_a_second_one_does_what_is_missing(capsys, small, pictures, tmp_path):
    work, out = shutil.copytree(pictures, tmp_path / "work"), tmp_path / "out"
    shutil.copy(work / "plain.png", work / "same.png")
    Image.new("RGB", (20, 20)).save(work / "tiny.png")
    (work / "void.png").touch()

    def again() -> tuple[int, str, str]:
        status = segment_all(small, Wanted(quick()), find([str(work)], out), out)
        return status, *capsys.readouterr()

    status, told, errors = again()
    assert status == 1 and told.endswith("\n3 of 5 pictures segmented, 2 failed\n")
    assert "same.png: has the same content as plain.png, whose result stands for both\n" in errors
    reasons = (out / "failures.txt").read_text().splitlines()
    assert [line.partition(": ")[0] for line in reasons] == ["tiny.png", "void.png"]
    assert "at least 64 pixels a side" in reasons[0] and "empty" in reasons[1]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["duplicates"] == {"same.png": "plain.png"} and set(manifest["failures"]) == {"tiny.png", "void.png"}
    assert len(manifest["pictures"]) == 3 and len(manifest["weights"]) == 64
    before = contents(out)
    (work / "void.png").unlink()
    Image.fromarray(draw_scene(9, 128).image).save(work / "tiny.png")
    status, told, errors = again()
    assert status == 0 and f"{work}/tiny.png -> {out}/tiny\n" in told and told.count(" -> ") == 1
    after = contents(out)
    assert {name for name in before if before[name] != after.get(name)} == {
        "manifest.json", "failures.txt", ".emerdiff/failed/tiny.json",
    }  # fmt: skip


def test_the_next_picture_is_read_while_the_network_works(small, tmp_path, monkeypatch):
    sources = identify(find([str(small_pictures(tmp_path / "work", 3))], tmp_path / "out"))
    read, seen = [threading.Event() for _ in range(4)], []
    load = runs.load

    def loading(source, **options):
        loaded = load(source, **options)
        read[sources.index(source)].set()
        return loaded

    class Waiting:
        def __getattr__(self, name):
            return getattr(small, name)

        def __call__(self, *arguments, **options):
            seen.append((read[len(seen) + 1].wait(10), [one.is_set() for one in read]))
            return small(*arguments, **options)

    monkeypatch.setattr(runs, "load", loading)
    read[3].set()  # there is none
    (tmp_path / "out").mkdir()
    folders.claim(tmp_path / "out", {})
    outcomes = runs.run(Waiting(), Wanted(quick()), sources, tmp_path / "out")
    assert not any(outcome.fault for outcome in outcomes)
    assert seen == [(True, [True, True, False, True]), (True, [True] * 4), (True, [True] * 4)]  # one ahead, not all


def test_progress_counts_the_whole_set_by_the_hour(tmp_path):
    folders.claim(tmp_path, {})
    told = io.StringIO()
    with _Hourly(total=4, initial=1, file=told, mininterval=0, disable=False) as bar:
        bar.start_t -= 1800
        bar.update(2)
        bar.refresh()
    assert re.search(r"3 of 4 pictures \|.*\| 4 an hour, 15:\d\d left", told.getvalue())


def small_pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        Image.fromarray(draw_scene(seed, 64).image).save(folder / f"{seed}.png")
    return folder


def test_a_run_that_ends_at_any_write_goes_on_to_the_same_files(small, tmp_path, monkeypatch):
    pictures, wanted = small_pictures(tmp_path / "work", 2), Wanted(quick(), ("png", "coco"))
    work = find([str(pictures)], tmp_path / "whole")
    for out in (tmp_path / "whole", tmp_path / "broken"):
        out.mkdir()
    assert segment_all(small, wanted, work, tmp_path / "whole") == 0
    move, ends = folders._move, 0
    while True:
        left = ends

        def ending(*paths):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            move(*paths)

        monkeypatch.setattr(folders, "_move", ending)
        try:
            assert segment_all(small, wanted, work, tmp_path / "broken") == 0
            break
        except KeyboardInterrupt:
            ends += 1
    assert ends >= 8 and contents(tmp_path / "broken") == contents(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_that_are_killed_and_go_on_give_the_files_of_one_undisturbed(checkpoint, tmp_path):
    helper, work = Path(__file__).with_name("killing.py"), small_pictures(tmp_path / "work", 6)
    environment = os.environ | {"PYTHONPATH": str(helper.parents[1])}
    command = [sys.executable, helper, checkpoint, work, tmp_path, "3"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["killed"] and told["done"] == sorted(told["done"]) and told["done"][0] < 6
    assert told["ends"] == [0, 0] and told["differing"] == [] and told["files"] > 6 * 14


def test_processes_that_are_launched_together_share_the_pictures(capsys, small, checkpoint, tmp_path, monkeypatch):
    work, out = small_pictures(tmp_path / "work", 3), tmp_path / "out"
    monkeypatch.setattr("emerdiff.options.load", lambda *_, **__: small)
    waited = []  # in its end: the launcher ends all processes when one returns a status other than 0
    for index, of in ((1, ("1.png",)), (0, ("0.png", "2.png"))):
        state = SimpleNamespace(process_index=index, num_processes=2, device="cpu")
        state.wait_for_everyone = lambda index=index: waited.append((index, (out / f"{index}.json").exists()))
        monkeypatch.setattr("emerdiff.dataset.commands.processes", lambda state=state: state)
        quickly = ["--num-segments", "3", "--image-area", "4096", "--kmeans-n-init", "1", "--replay-steps", "2"]
        assert main(["segment", str(work), "--out", str(out), *quickly]) == 0
        told = capsys.readouterr().out
        assert told.count(" -> ") == len(of) and all(f"{work}/{name} -> " in told for name in of)
        assert (out / "manifest.json").exists() == (index == 0) == ("2 pictures of other shares" not in told)
    assert waited == [(1, True), (0, True)]
