import io
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quick
from PIL import Image

from emerdiff import Settings
from emerdiff.__main__ import main
from emerdiff.dataset.commands import segment_all
from emerdiff.dataset.pictures import find
from emerdiff.dataset.run import Wanted
from emerdiff.drawing import overlay, palette
from emerdiff.miniature.scenes import KINDS
from emerdiff.studies import ablation, pairs, sweep

OPTIONS = {f.name: getattr(quick(), f.name) for f in fields(Settings) if "range" in f.metadata}
GIVEN = {name: value for name, value in OPTIONS.items() if value is not None} | {"dtype": "float32"}
QUICK = [word for name, value in GIVEN.items() for word in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def run(checkpoint, picture, tmp_path_factory):
    """The folder that three pictures were written to, two of one stem and one broken, and what was printed."""
    folder = tmp_path_factory.mktemp("run")
    picture.save(folder / "scene.png")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "scene.jpg", quality=95)
    whole = (folder / "scene.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    images = [str(folder / name) for name in ("scene.png", "broken.png", "scene.jpg")]
    options = ["--out", str(folder / "new" / "out"), "--model", str(checkpoint), "--device", "cpu", *QUICK]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(["segment", *images, *options])
    return folder, status, out.getvalue(), err.getvalue()


def called(capsys, *arguments) -> tuple[int, str, str]:
    status = main([*map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def strict(text: str) -> dict:
    """JSON as the standard has it: without NaN and infinities."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_broken_picture_is_reported_and_the_others_are_written(run):
    folder, status, out, err = run
    assert status == 1
    assert "broken.png: broken.png cannot be read: " in err and "broken" not in out
    expected = {f"scene_{ending}_{what}" for ending in ("png", "jpg") for what in ("labels.png", "overlay.png")}
    expected |= {"scene_png.json", "scene_jpg.json"}
    target = folder / "new" / "out"
    assert {path.name for path in target.iterdir()} == expected | {".emerdiff", "manifest.json", "failures.txt"}
    assert (target / "failures.txt").read_text().startswith("broken.png: broken.png cannot be read: ")
    for ending in ("png", "jpg"):
        assert f"{folder / 'scene'}.{ending} -> {target / 'scene'}_{ending}\n" in out


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_what_is_written_is_what_the_pipeline_returns(run, small, ending):
    folder = run[0]
    result = small(folder / f"scene.{ending}", quick())
    stem = folder / "new" / "out" / f"scene_{ending}"
    labels = Image.open(f"{stem}_labels.png")
    assert labels.mode == "P" and labels.size == (192, 128)
    assert (np.asarray(labels) == result.labels_at_original_size).mean() > 0.999  # loaded anew, rounding may differ
    drawn = np.asarray(Image.open(f"{stem}_overlay.png"))
    assert (drawn == overlay(result.image, result.labels, palette(4))).mean() > 0.99
    summary = strict(Path(f"{stem}.json").read_text())
    assert summary["settings"] == result.summary()["settings"] and summary["settings"]["num_segments"] == 4
    assert summary["model"] == small.config["_name_or_path"]
    assert (summary["original_size"], summary["size"], summary["grid"]) == ([192, 128], [128, 64], [16, 8])
    segments = summary["segments"]
    assert [segment["segment"] for segment in segments] == [0, 1, 2, 3]
    assert [segment["cells"] for segment in segments] == np.bincount(result.coarse_labels.ravel()).tolist()
    assert sum(segment["share"] for segment in segments) == pytest.approx(1, abs=1e-5)
    assert sum(segment["naive_share"] for segment in segments) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def named(capsys, checkpoint, picture, tmp_path):
    """Runs `segment` with words and a map of scores: one word in the left half, another in the right."""
    picture.save(tmp_path / "a.png")
    scores = np.zeros((4, 6, 3), np.float32)
    scores[:, :3, 0], scores[:, 3:, 2] = 9, 9
    np.savez(tmp_path / "map.npz", scores=scores, words=np.array(["sea", "house", "tree"]))
    (tmp_path / "words.txt").write_text("tree\nsea|house\n")

    def run(out: Path, *options: str):
        command = ["segment", tmp_path / "a.png", "--out", out, "--model", checkpoint, "--device", "cpu", *QUICK]
        words = ["--words", tmp_path / "words.txt", "--name-model", tmp_path / "map.npz"]
        return called(capsys, *command, *words, *options)

    return run


def test_names_go_into_summaries_and_are_the_classes_of_a_dataset(named, tmp_path):
    out = tmp_path / "out"
    assert named(out, "--format", "png", "coco")[0] == 0
    summary, coco = strict((out / "a.json").read_text()), strict((out / "coco" / "annotations.json").read_text())
    segments = {one["segment"]: one for one in summary["segments"]}
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert list(names.values()) == ["tree", "sea", "unsure"] and coco["annotations"]
    found = [names[one["category_id"]] for one in coco["annotations"]]
    shown = [segments[i] for i in np.unique(Image.open(out / "a_labels.png"))]
    assert found == [one["name"] or "unsure" for one in shown]
    for one in shown:
        told = [word["word"] for word in one["words"]]
        assert sorted(told) == ["sea", "tree"] and one["name"] in (None, told[0])
    status, _, err = named(out, "--format", "png", "coco", "--merge-names")  # other segments: not the same run
    assert status == 1 and "merge_names False" in err


def test_segments_of_one_name_can_be_written_as_one(named, tmp_path):
    assert named(tmp_path / "each")[0] == named(tmp_path / "merged", "--merge-names")[0] == 0
    each, merged = (strict((tmp_path / run / "a.json").read_text())["segments"] for run in ("each", "merged"))
    cells = {}
    for one in each:
        cells[one["name"] or one["segment"]] = cells.get(one["name"] or one["segment"], 0) + one["cells"]
    assert len(merged) == len(cells) < len(each) and {one["name"] for one in merged} == {one["name"] for one in each}
    assert sorted(one["cells"] for one in merged) == sorted(cells.values())
    assert all(cells[one["name"]] == one["cells"] for one in merged if one["name"])


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--name-model", "map.npz"], "--name-model needs --words"),
        (["--merge-names"], "--merge-names needs --words"),
        (["--words", "a,b", "--name-model", "map.npz"], "is a map of one picture, but there are 2 pictures"),
        (["--words", "sky"], "give at least two words, since a name is a choice between words: there is only 'sky'"),
        (["--words", "sky,sky"], "'sky' is there twice"),
    ],
)
def test_words_that_make_no_sense_are_refused_before_any_work(capsys, picture, tmp_path, options, expected):
    for name in "ab":
        picture.save(tmp_path / f"{name}.png")
    pictures = map(str, (tmp_path / "a.png", tmp_path / "b.png"))
    with suppress(SystemExit):  # of the parser, for values
        main(["segment", *pictures, "--out", str(tmp_path / "out"), "--model", "none", *options])
    assert expected in capsys.readouterr().err


def test_a_summary_is_strict_json_even_where_a_segment_has_no_pixel(small, picture):
    result = small(picture, quick())
    result.labels[:] = 1
    segments = strict(json.dumps(result.summary()))["segments"]
    assert [segment["share"] for segment in segments] == [0, 1, 0, 0]
    assert [segment["mean_confidence"] is None for segment in segments] == [True, False, True, True]


def test_one_good_picture_gives_status_0_under_its_plain_name(capsys, checkpoint, picture, tmp_path):
    picture.save(tmp_path / "only.png")
    options = ["--modulation-timestep", 281, "--num-segments", 2, "--no-attention-injection", "--no-keep-aspect"]
    model = ["--model", checkpoint, "--device", "cpu"]
    place = tmp_path / "out"
    status, out, err = called(capsys, "segment", tmp_path / "only.png", "--out", place, *model, *QUICK, *options)
    assert status == 0 and (place / "only_labels.png").exists()
    assert "only.png: Modulation timestep 281 is not on the grid of 10 sampling steps; the nearest, 301" in err
    summary = strict((place / "only.json").read_text())
    assert summary["settings"]["attention_injection"] is summary["settings"]["keep_aspect"] is False
    assert summary["size"] == [64, 64] and len(summary["segments"]) == 2


@pytest.mark.parametrize(
    "option, expected",
    [
        (["--num-segments", "1"], "num_segments must be a whole number from 2 to 256, not 1"),
        (["--strength", "nan"], "strength must be a number from 0 to 1000, not nan"),
        (["--smoothing", "much"], "smoothing must be a number from 0 to 20, not 'much'"),
        (["--kmeans-n-init", "2.5"], "kmeans_n_init must be a whole number from 1 to 1000, not 2.5"),
    ],
)
def test_a_bad_setting_gives_status_1_and_its_range(capsys, checkpoint, tmp_path, option, expected):
    arguments = ["segment", "any.png", "--out", tmp_path / "out", "--model", checkpoint, "--device", "cpu", *option]
    status, out, err = called(capsys, *arguments)
    assert (status, out) == (1, "") and f"error: {expected}\n" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--model", "nobody/nothing"], "error: cannot load 'nobody/nothing': it is not on this machine"),
        (["--device", "nonsense"], "error: the device 'nonsense' cannot be used here"),
    ],
)
def test_a_model_or_device_that_is_not_there_gives_status_1_and_the_reason(capsys, tmp_path, options, expected):
    status, out, err = called(capsys, "segment", "any.png", "--out", tmp_path, *options)
    assert (status, out) == (1, "") and expected in err


def test_too_many_segments_for_one_picture_are_reported_like_a_broken_file(capsys, checkpoint, picture, tmp_path):
    picture.save(tmp_path / "a.png")
    where = [tmp_path / "a.png", "--out", tmp_path / "out", "--model", checkpoint, "--device", "cpu"]
    status, _, err = called(capsys, "segment", *where, *QUICK, "--num-segments", 200)
    assert status == 1 and re.search(r"a\.png: num_segments is 200, .* 128 cells", err)


def test_a_folder_that_cannot_be_made_gives_status_1_and_the_reason(capsys, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        for command in (["segment", "any.png"], ["evaluate", "scenes:1..1"]):
            status, _, err = called(capsys, *command, "--out", out, "--model", checkpoint, "--device", "cpu")
            assert status == 1 and f"error: --out must be a folder, but {out} is a file or lies below one" in err


# --- Nothing about one picture stops the others


@pytest.fixture
def folder(picture, tmp_path, monkeypatch):
    """A folder to be in, with a.png and b.png."""
    monkeypatch.chdir(tmp_path)
    picture.resize((64, 64)).save("a.png")
    picture.resize((64, 64)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("b.png")
    return tmp_path


@pytest.fixture
def model(checkpoint):
    return ["--model", str(checkpoint), "--device", "cpu", *QUICK]


def written(folder: Path) -> set[str]:
    """What the files' names begin with; each picture has all three, and nothing else is left."""
    stems = {path.name.removesuffix(".json") for path in folder.glob("*.json")} - {"manifest"}
    files = {stem + ending for stem in stems for ending in ("_labels.png", "_overlay.png", ".json")}
    assert {path.name for path in folder.iterdir()} - {"failures.txt"} <= files | {".emerdiff", "manifest.json"}
    assert not list((folder / ".emerdiff").glob("part-*"))
    return stems


@pytest.mark.skipif(os.name != "posix", reason="elsewhere there are no such names")
def test_no_name_stops_a_batch_or_is_printed_raw(folder, model):
    long = "é" * 125
    names = ["-dash.png", "@t.png", "-h.png", "two\nlines.png", "\x1b]0;title\x07.png", "\u202egnp.png", "東京 🌳.png"]
    names += ["CON.png", f"{long}.png", os.fsdecode(b"latin\xe9.png"), "a.jpg", "A.png", "a_labels.png"]
    for name in names:
        (folder / name).write_bytes((folder / "b.png").read_bytes() + os.fsencode(name))  # none is like another
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "dangling.png").symlink_to("nowhere")
    names = [*names, "a.png", "b.png", "./b.png", str(folder / "b.png")]  # one of them three times
    wrong = ["empty.png", "folder.png", "fifo.png", "dangling.png", "gone.png", "x" * 300, ""]
    streams = [io.TextIOWrapper(io.BytesIO(), "ascii") for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        status = main(["segment", *wrong, *names, "--out", "out", *model, "--num-segments", "2"])
    out, err = (stream.buffer.getvalue().decode("ascii") for stream in streams)
    assert status == 1 and out.endswith(f"\n{len(names) - 2} of {len(names) + 5} pictures segmented, 7 failed\n")
    assert all(line.isprintable() for line in out.splitlines())
    for name in names[:-2]:
        assert f"{name.encode('unicode_escape').decode() if name.isascii() else name[-4:]} -> out" in out
    for name in wrong:
        assert f"\n{name or '.'}: " in f"\n{err}"
    stems = {"dash", "@t", "h", "two lines", "]0;title", "gnp", "東京 🌳", "_CON", "latin", "a_jpg", "a_labels", "b"}
    assert stems < written(folder / "out") and len(written(folder / "out")) == len(names) - 2
    assert strict((folder / "out" / "latin.json").read_text())["picture"] == r"latin\udce9.png"


class Failing:
    """The pipeline, but before some of its runs, by number, something else happens."""

    def __init__(self, pipe, happens):
        self.pipe, self.happens, self.runs = pipe, happens, 0

    def __call__(self, *arguments, **options):
        self.runs += 1
        self.happens.get(self.runs - 1, lambda: None)()
        return self.pipe(*arguments, **options)

    def __getattr__(self, name):
        return getattr(self.pipe, name)


def in_out(pipe, *names: str, **changes) -> int:
    return segment_all(pipe, Wanted(quick(**changes)), find(names, Path("out")), Path("out"))


def raising(error):
    def happens():
        raise error

    return happens


MEMORY = "there is not enough memory: a smaller image_area or fewer num_segments need less"
HAPPENS = [
    (raising(MemoryError()), MEMORY),
    (raising(torch.OutOfMemoryError("CUDA out of memory.")), MEMORY),
    (lambda: torch.empty(2**50), MEMORY),
    (raising(RuntimeError("a\x1b[31m line\nand more")), "RuntimeError: a\\x1b[31m line\n"),
    (raising(OSError(5, "Input/output error", "some.png")), "Input/output error: some.png"),
    (raising(KeyError("x")), "KeyError: 'x'"),
    (raising(type("Unheard", (Exception,), {})()), "Unheard: "),
    (lambda: Path("out/8_overlay.png").mkdir(), "8_overlay.png already exists and is not of this run: move it"),
    (lambda: Path("out/9.json").symlink_to("../a.png"), "9.json already exists and is not of this run: move it"),
]


def test_whatever_happens_with_a_picture_the_others_are_segmented(capsys, small, folder):
    happens = {i: what for i, (what, _) in enumerate(HAPPENS, 1)}
    for i in happens:
        (folder / f"{i}.png").write_bytes((folder / "a.png").read_bytes() + bytes([i]))
    assert in_out(Failing(small, happens), "a.png", *(f"{i}.png" for i in happens), "b.png") == 1
    out, err = capsys.readouterr()
    assert re.findall(r"(.*)\.png -> out", out) == ["a", "b"]
    assert out.endswith("\n2 of 11 pictures segmented, 9 failed\n")
    noted = Path("out/failures.txt").read_text().splitlines()
    for i, (_, said) in enumerate(HAPPENS, 1):
        assert f"\n{i}.png: {said}" in f"\n{err}" and noted[i - 1].startswith(f"{i}.png: {said.rstrip()}")
    assert (folder / "a.png").read_bytes() == (folder / "1.png").read_bytes()[:-1]


def test_a_full_disk_ends_a_run_and_leaves_no_half_of_a_pictures_files(small, folder):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))  # bytes of a file; the label PNG has fewer

    try:
        with pytest.raises(OSError, match="File too large"):
            in_out(Failing(small, {1: full}), "a.png", "b.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert written(folder / "out") == {"a"}
    assert in_out(small, "a.png", "b.png") == 0 and written(folder / "out") == {"a", "b"}


def test_an_interrupt_stops_all(capsys, small, folder, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        in_out(Failing(small, {0: raising(KeyboardInterrupt())}), "b.png", "a.png")
    assert written(folder / "out") == set()
    monkeypatch.setattr("emerdiff.options.load", lambda *_, **__: raising(KeyboardInterrupt())())
    assert called(capsys, "segment", "a.png", "--out", "out") == (130, "", "stopped\n")


@pytest.mark.parametrize("broken", ["stdout", "stderr"])
@pytest.mark.parametrize("how", ["no reader", "full", "closed"])
def test_streams_that_nobody_reads_change_nothing(folder, model, monkeypatch, broken, how):
    if how == "full" and not os.path.exists("/dev/full"):
        pytest.skip("there is no full device here")
    stream = None
    if how == "no reader":
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    elif how == "full":
        stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    monkeypatch.setattr(sys, broken, stream)
    assert main(["segment", "gone.png", "a.png", "--out", "out", *model]) == 1
    assert written(folder / "out") == {"a"}
    if stream:
        stream.close()  # as at the program's end: raises nothing


# --- What is there is not overwritten


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_belongs_to_one_run_and_what_is_done_stays_as_it_is(small, folder):
    assert in_out(small, "a.png") == 0
    Image.open("b.png").save("out/a_labels.png")  # edited, say
    before = contents(folder / "out")
    assert in_out(Failing(small, {0: raising(AssertionError())}), "a.png") == 0
    assert contents(folder / "out") == before
    changed = [(quick(seed=7), {}, "seed 42"), (quick(), {"min_confidence": 0.5}, "min_confidence 0"),
               (quick(), {"formats": ("npz", "png")}, r'formats \["png"\]')]  # fmt: skip
    for settings, changes, said in changed:
        with pytest.raises(ValueError, match=f"out holds a run with {said}.*: choose another folder"):
            segment_all(small, Wanted(settings, **changes), [], Path("out"))
    with torch.no_grad():
        weight = next(small.unet.parameters())
        kept = weight.clone()
        weight += 1
        with pytest.raises(ValueError, match="out holds a run with weights [0-9a-f]{64}: choose"):
            in_out(small, "a.png")
        weight.copy_(kept)  # adding and subtracting would round it, for all tests that follow
    assert contents(folder / "out") == before


def test_files_from_elsewhere_are_not_overwritten(small, folder):
    Path("out").mkdir()
    Path("out/thesis.txt").touch()
    with pytest.raises(ValueError, match="out holds files that are not of such a run, as thesis.txt: choose a new"):
        in_out(small, "a.png")
    Path("out/thesis.txt").unlink()
    assert in_out(small, "a.png") == 0
    kinds = (lambda file: file.write_bytes(b"mine"), lambda file: file.symlink_to("nowhere"), Path.mkdir)
    for name, write in zip(("b_labels.png", "b_overlay.png", "b.json"), kinds, strict=True):
        write(mine := Path("out", name))
        before = mine.is_symlink() or mine.is_dir() or mine.read_bytes()
        assert in_out(small, "b.png") == 1 and not Path("out/.emerdiff/done/b.json").exists()
        assert before == (mine.is_symlink() or mine.is_dir() or mine.read_bytes())
        mine.rmdir() if mine.is_dir() else mine.unlink()
    assert in_out(small, "b.png") == 0 and not Path("out/failures.txt").exists()


def test_pictures_in_the_folder_for_the_results_are_refused(capsys, folder):
    Path("out/below").mkdir(parents=True)
    shutil.copy("a.png", "out/below/c.png")
    for picture, out in (("out/below/c.png", "out"), ("out/below", "out"), ("out", "./out"), ("a.png", ".")):
        status, _, err = called(capsys, "segment", picture, "--out", out)
        assert status == 1 and f".png lies in the folder for the results, {Path(out)}: choose another --out" in err


# --- The studies


def test_a_file_that_cannot_be_written_is_told_before_a_study_begins(capsys, folder):
    (folder / "folder.png").mkdir()
    wrong = [
        (["--out", "no/where.json"], "'no/where.json' cannot be written: its folder does not exist"),
        (["--out", "folder.png"], "'folder.png' cannot be written: "),
        (["--out", "a.png/b.json"], "'a.png/b.json' cannot be written: "),
        (["--out", "x" * 300], "cannot be written: "),
        (["--figure", "no/where.png"], "'no/where.png' cannot be written: its folder does not exist"),
        (["--figure", "folder.png"], "'folder.png' cannot be written: "),
        (["--figure", "a.xyz"], "must end in .png, .svg, .pdf, not 'a.xyz'"),
        (["--figure", "figure"], "must end in .png, .svg, .pdf, not 'figure'"),
        (["--out", "one.svg", "--figure", "one.svg"], "--out and --figure cannot be the same file, 'one.svg'"),
    ]
    for command in ("sweep", "ablate", "benchmark"):
        for options, said in wrong:
            with pytest.raises(SystemExit) as end:
                main([command, "--model", "nobody/nothing", *options])
            assert end.value.code == 2 and said in capsys.readouterr().err
        # what can be written is left as it was, also where the command then fails
        options = ["--out", folder / "a.png", "--figure", folder / "new.png", "--model", "nobody/nothing"]
        before = (folder / "a.png").read_bytes()
        assert called(capsys, command, *options)[0] == 1
        assert (folder / "a.png").read_bytes() == before and not (folder / "new.png").exists()


@pytest.fixture
def short(checkpoint, tmp_path):
    """The checkpoint, but with defaults that make the many runs of a study short: 4 of 10 steps are replayed."""
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    index = json.loads((folder / "model_index.json").read_text())
    defaults = {"num_inference_steps": 10, "modulation_timestep": 301, "kmeans_n_init": 1}
    (folder / "model_index.json").write_text(json.dumps(index | {"defaults": defaults}))
    return folder


def test_a_sweep_holds_variants_against_the_exact_run(capsys, short, tmp_path, monkeypatch):
    names = ("exact", "one side, 3 steps", "magnified, 2 steps")
    monkeypatch.setattr(sweep, "VARIANTS", {name: sweep.VARIANTS[name] for name in names})
    monkeypatch.setattr(sweep, "FINE", 6)
    files = {f"--{kind}": tmp_path / name for kind, name in (("out", "sweep.json"), ("figure", "sweep.png"))}
    arguments = ["--scenes", 1, "--num-segments", 3, "--model", short, "--device", "cpu", "--dtype", "float32"]
    status, out, _ = called(capsys, "sweep", *arguments, *(word for pair in files.items() for word in pair))
    rows = strict(files["--out"].read_text())["rows"]
    assert status == 0 and {*names, "naive"} < rows.keys() and all(f"\n{name} " in out for name in rows)
    others = [*names[1:], sweep.RECUT, sweep.UNION]  # the last is held against the re-cut
    assert rows["exact"]["agreement"] == 1 and all(0 < rows[name]["agreement"] < 1 for name in others)
    assert all(0 <= row[score] <= 1 for row in rows.values() for score in ("miou", "hungarian", "boundary_f"))
    assert Image.open(files["--figure"]).width > 600


def test_ablations_vary_one_setting_at_a_time(capsys, short, tmp_path, monkeypatch):
    values = {"feature_timestep": (1, 301), "feature_layer": (0, 1), "modulation_layer": (1, 2)}
    values |= {"strength": (0.0, 10.0), "attention_injection": (True, False)}
    monkeypatch.setattr(ablation, "VALUES", values | {"smoothing": (0.8,)})
    arguments = ["--scenes", 1, "--num-segments", 3, "--model", short, "--device", "cpu", "--dtype", "float32"]
    status, out, _ = called(capsys, "ablate", *arguments, "--out", tmp_path / "a.json", "--figure", tmp_path / "a.png")
    rows = strict((tmp_path / "a.json").read_text())["rows"]
    assert status == 0 and [[row["value"] for row in rows[name]] for name in values] == [[*v] for v in values.values()]
    own = rows["smoothing"][0]
    same = [rows["feature_timestep"][0], rows["feature_layer"][0], rows["modulation_layer"][1], rows["strength"][1]]
    assert all(row | {"value": 0.8} == own for row in same)
    changed = [
        rows["feature_layer"][1],
        rows["modulation_layer"][0],
        rows["strength"][0],
        rows["attention_injection"][1],
    ]
    assert all(row | {"value": 0.8} != own for row in changed)
    naive = [row["naive_boundary_f"] for row in (own, rows["strength"][0], rows["feature_layer"][1])]
    assert naive[0] == naive[1] != naive[2]
    assert Image.open(tmp_path / "a.png").width > 600


def test_pairs_are_scored_together_and_apart(capsys, short, tmp_path, monkeypatch):
    drawn, draw = [], pairs.draw_scene
    monkeypatch.setattr(pairs, "draw_scene", lambda seed, *args: drawn.append((seed, *args)) or draw(seed, *args))
    arguments = ["--scenes", 2, "--num-segments", 2, "--model", short, "--device", "cpu", "--dtype", "float32"]
    places = ["--preset", "preview", "--first-seed", 610_000, "--out", tmp_path / "p.json"]
    status, out, _ = called(capsys, "pairs", *arguments, *places)
    result = strict((tmp_path / "p.json").read_text())
    assert status == 0 and result["seeds"] == [610_000, 610_003]
    kinds = KINDS[0], KINDS[0], KINDS[1], KINDS[1]  # of 2 scenes each
    assert [(seed, kind) for seed, _, kind in drawn] == [(610_000 + i, kind) for i, kind in enumerate(kinds)]
    assert result["rows"].keys() == {pairs.TOGETHER, pairs.ONE_TO_ONE, pairs.NEAREST, pairs.NAIVE}
    assert all(f"\n{name} " in out and 0 < row["pairs"] < 1 for name, row in result["rows"].items())


def test_rules_for_the_number_of_segments_are_told_with_their_best_parameter(capsys, short, tmp_path):
    arguments = ["scenes:1..2", "--model", short, "--device", "cpu", "--dtype", "float32", "--preset", "fast"]
    cheap = ["--replay-steps", 1, "--image-area", 64 * 64]
    status, out, _ = called(capsys, "granularity", *arguments, *cheap, "--out", tmp_path / "g.json")
    rows = strict((tmp_path / "g.json").read_text())
    assert status == 0 and all(f"\n{name} " in out for name in rows)
    assert all(0 < row["score"] <= row["ceiling"] and row["parameter"] > 0 for (row,) in rows.values())


def test_an_evaluation_may_give_each_picture_its_own_number_of_segments(capsys, short, tmp_path):
    automatic = ["--num-segments", "auto", "--merge-height", 1.3, "--image-area", 64 * 64]
    model = ["--methods", "EmerDiff", "bilinear", "--model", short, "--device", "cpu", "--dtype", "float32"]
    results = tmp_path / "results"
    status, out, _ = called(capsys, "evaluate", "scenes:1..3", "--out", results, *automatic, *model)
    lines = [json.loads(line) for line in (results / "lines-0.jsonl").read_text().splitlines()]
    numbers = [line["EmerDiff"]["segments"] for line in lines]
    assert status == 0 and "num_segments='auto'" in out and len(set(numbers)) > 1, numbers
    assert strict((results / "evaluation.json").read_text())["settings"]["num_segments"] == "auto"


@pytest.mark.parametrize("command", ["sweep", "ablate", "pairs", "benchmark"])
def test_studies_with_one_number_of_segments_refuse_automatic_ones(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--num-segments", "auto"])
    assert end.value.code == 2 and "--num-segments: must be a number here, not 'auto'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_help_names_every_setting_and_its_range(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for f in fields(Settings):
        assert f"--{f.name.replace('_', '-')}" in text
        if "range" in f.metadata:
            assert "{} to {}".format(*f.metadata["range"]) in text
    assert "2 to 256, or auto: as many as differ enough, at most 30" in text


def test_the_module_runs_as_a_program():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "emerdiff", "segment", "--help"]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert process.returncode == 0 and "usage: python -m emerdiff segment" in process.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], ["segment"], ["segment", "a.png"], ["paint"], ["sweep", "--scenes", "few"], ["ablate", "--scenes", "0"]]
    + [["evaluate"]],
)
def test_arguments_that_do_not_fit_give_status_2_and_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and re.match("usage: (python -m )?emerdiff", capsys.readouterr().err)
