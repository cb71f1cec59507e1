import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import quick
from PIL import Image

from emerdiff import Settings, ablation, sweep
from emerdiff.__main__ import main
from emerdiff.drawing import overlay, palette

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
    assert {path.name for path in target.iterdir()} == expected
    for ending in ("png", "jpg"):
        assert f"{folder / 'scene'}.{ending} -> {target / 'scene'}_{ending}_labels.png, _overlay.png, .json\n" in out


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
    status, out, err = called(capsys, "segment", tmp_path / "only.png", "--out", tmp_path, *model, *QUICK, *options)
    assert status == 0 and "only_labels.png" in out
    assert "only.png: Modulation timestep 281 is not on the grid of 10 sampling steps; the nearest, 301" in err
    summary = strict((tmp_path / "only.json").read_text())
    assert summary["settings"]["attention_injection"] is summary["settings"]["keep_aspect"] is False
    assert summary["size"] == [64, 64] and len(summary["segments"]) == 2


@pytest.mark.parametrize(
    "option, expected",
    [
        (["--num-segments", "1"], "num_segments must be a whole number from 2 to 256, not 1"),
        (["--strength", "nan"], "strength must be a number from 0 to 1000, not nan"),
        (["--smoothing", "much"], "smoothing must be a number from 0 to 20, not 'much'"),
        (["--kmeans-n-init", "2.5"], 'kmeans_n_init must be a whole number from 1 to 1000 or "auto", not 2.5'),
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
    arguments = ["segment", tmp_path / "a.png", "--out", tmp_path, "--model", checkpoint, "--device", "cpu", *QUICK]
    status, _, err = called(capsys, *arguments, "--num-segments", 200)
    assert status == 1 and re.search(r"a\.png: num_segments is 200, .* 128 cells", err)


def test_a_folder_that_cannot_be_made_gives_status_1_and_the_reason(capsys, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        arguments = ["segment", "any.png", "--out", out, "--model", checkpoint, "--device", "cpu"]
        status, _, err = called(capsys, *arguments)
        assert status == 1 and re.search(r"error: .*file", err)


def test_a_sweep_holds_variants_against_the_exact_run(capsys, checkpoint, tmp_path, monkeypatch):
    names = ("exact", "one side, 8 steps", "shared rows, one side, 6 steps")
    monkeypatch.setattr(sweep, "VARIANTS", {name: sweep.VARIANTS[name] for name in names})
    monkeypatch.setattr(sweep, "FINE", 6)
    files = {f"--{kind}": tmp_path / name for kind, name in (("out", "sweep.json"), ("figure", "sweep.png"))}
    arguments = ["--scenes", 1, "--num-segments", 3, "--model", checkpoint, "--device", "cpu", "--dtype", "float32"]
    status, out, _ = called(capsys, "sweep", *arguments, *(word for pair in files.items() for word in pair))
    rows = strict(files["--out"].read_text())["rows"]
    assert status == 0 and {*names, "naive"} < rows.keys() and all(f"\n{name} " in out for name in rows)
    others = [*names[1:], sweep.RECUT, sweep.UNION]  # the last is held against the re-cut
    assert rows["exact"]["agreement"] == 1 and all(0 < rows[name]["agreement"] < 1 for name in others)
    assert all(0 <= row[score] <= 1 for row in rows.values() for score in ("miou", "hungarian", "boundary_f"))
    assert Image.open(files["--figure"]).width > 600


def test_ablations_vary_one_setting_at_a_time(capsys, checkpoint, tmp_path, monkeypatch):
    values = {"feature_timestep": (1, 301), "feature_layer": (0, 1), "modulation layer": (1, 2)}
    values |= {"strength": (0.0, 10.0), "attention_injection": (True, False)}
    monkeypatch.setattr(ablation, "VALUES", values | {"smoothing": (0.8,)})
    arguments = ["--scenes", 1, "--num-segments", 3, "--model", checkpoint, "--device", "cpu", "--dtype", "float32"]
    status, out, _ = called(capsys, "ablate", *arguments, "--out", tmp_path / "a.json", "--figure", tmp_path / "a.png")
    rows = strict((tmp_path / "a.json").read_text())["rows"]
    assert status == 0 and [[row["value"] for row in rows[name]] for name in values] == [[*v] for v in values.values()]
    own = rows["smoothing"][0]
    same = [rows["feature_timestep"][0], rows["feature_layer"][0], rows["modulation layer"][1], rows["strength"][1]]
    assert all(row | {"value": 0.8} == own for row in same)
    changed = [
        rows["feature_layer"][1],
        rows["modulation layer"][0],
        rows["strength"][0],
        rows["attention_injection"][1],
    ]
    assert all(row | {"value": 0.8} != own for row in changed)
    naive = [row["naive_boundary_f"] for row in (own, rows["strength"][0], rows["feature_layer"][1])]
    assert naive[0] == naive[1] != naive[2]
    assert Image.open(tmp_path / "a.png").width > 600


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


def test_the_module_runs_as_a_program():
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "emerdiff", "segment", "--help"]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert process.returncode == 0 and "usage: python -m emerdiff segment" in process.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["segment"], ["segment", "a.png"], ["paint"], ["sweep", "--scenes", "few"], ["evaluate"]]
)
def test_arguments_that_do_not_fit_give_status_2_and_the_usage(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "usage: python -m emerdiff" in capsys.readouterr().err
