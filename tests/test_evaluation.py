"""Datasets, competitors, and runs over many pictures that can be broken off, continued and shared."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quick, small_parts
from PIL import Image
from scipy.stats import entropy

import emerdiff
from emerdiff.__main__ import main
from emerdiff.miniature.scenes import CLASSES, draw_scene
from emerdiff.studies import competitors
from emerdiff.studies.competitors import METHODS
from emerdiff.studies.datasets import open_dataset
from emerdiff.studies.evaluation import Evaluation, claim, figure, lines, markdown, run, summarize

# --- Datasets


def test_scenes_are_named_by_their_seeds_and_drawn_again():
    scenes = open_dataset("scenes:500007..500009", 64)
    assert scenes.names == ("500007", "500008", "500009") and scenes.classes == CLASSES
    image, labels = scenes.load("500008")
    np.testing.assert_array_equal(image, draw_scene(500_008, 64).image)
    np.testing.assert_array_equal(labels, draw_scene(500_008, 64).labels)
    image, labels = open_dataset("room:500007..500009", 64).load("500008")
    np.testing.assert_array_equal(image, draw_scene(500_008, 64, "room").image)
    with pytest.raises(ValueError, match="room:500000..500099"):
        open_dataset("room:9..7", 64)


@pytest.fixture
def folder(tmp_path):
    """Two pictures with labels, one of them with void."""
    for part in ("images", "labels"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for name, ending in (("a", "jpg"), ("b.c", "png")):
        scene = draw_scene(len(name), 128)
        Image.fromarray(scene.image).save(tmp_path / "data" / "images" / f"{name}.{ending}")
        labels = scene.labels.astype(np.uint8)
        labels[:20] = 255
        Image.fromarray(labels).save(tmp_path / "data" / "labels" / f"{name}.png")
    return tmp_path / "data"


def test_a_folder_of_pictures_and_labels_is_a_dataset(folder):
    dataset = open_dataset(str(folder), 512)
    assert dataset.names == ("a", "b.c") and len(dataset.classes) == 255
    picture, labels = dataset.load("b.c")
    np.testing.assert_array_equal(np.asarray(picture), draw_scene(3, 128).image)
    assert (labels[:20] == 255).all() and labels[20:].max() < 28


def test_what_is_wrong_with_a_folder_is_said(folder):
    dataset = open_dataset(str(folder), 512)
    Image.new("L", (64, 32)).save(folder / "labels" / "a.png")
    with pytest.raises(ValueError, match="labels/a.png is 64 x 32 pixels, but its picture is 128 x 128"):
        dataset.load("a")
    Image.new("RGB", (128, 128)).save(folder / "labels" / "a.png")
    with pytest.raises(ValueError, match="8-bit PNG of one channel"):
        dataset.load("a")
    (folder / "images" / "a.jpg").unlink()
    with pytest.raises(ValueError, match="one picture of that name in images/, which has 0"):
        dataset.load("a")


@pytest.mark.parametrize(
    "source, expected",
    [
        ("scenes:9", "first and last seed, as in scenes:500000..500099, not 'scenes:9'"),
        ("scenes:9..8", "first and last seed"),
        ("nowhere", "neither scenes:FIRST..LAST nor a folder"),
    ],
)
def test_a_dataset_that_there_is_not_is_refused(source, expected):
    with pytest.raises(ValueError, match=expected):
        open_dataset(source, 128)


# --- Competitors


@pytest.fixture(scope="module")
def result(small, picture):
    return small(picture, quick())


@pytest.fixture(scope="module")
def four_levels():
    """Levels like those of Stable Diffusion 1.x, whose native grid lies two levels below the latents."""
    blocks = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    changes = {"sample_size": 64, "block_out_channels": (32, 32, 32, 32), "norm_num_groups": 8}
    return emerdiff.EmerDiffPipeline(**small_parts(**changes, down_block_types=blocks[0], up_block_types=blocks[1]))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_labels_every_pixel_and_does_so_again(small, result, method):
    labels = METHODS[method](small, result)
    assert labels.shape == result.labels.shape and labels.dtype == np.int32 and labels.min() >= 0
    np.testing.assert_array_equal(METHODS[method](small, result), labels)


@pytest.mark.parametrize("method", ["DiffSeg", "DiffCut"])
@pytest.mark.parametrize("network", ["miniature", "small_v2", "four_levels"])
def test_the_networks_attention_is_read_on_every_kind_of_checkpoint(request, picture, method, network):
    pipe = request.getfixturevalue(network)
    result = pipe(picture, quick(num_segments=3, modulation_timestep=1))
    bare = replace(result, features=result.features[:0], responses=result.responses[:0])
    labels = METHODS[method](pipe, bare)
    assert labels.shape == result.image.shape[:2] and labels.dtype == np.int32 and labels.min() >= 0
    np.testing.assert_array_equal(labels, METHODS[method](pipe, result))


def test_diffcut_says_which_network_it_cannot_read(small, result):
    with pytest.raises(ValueError, match="DiffCut needs self-attention in the network's encoder"):
        competitors.diffcut(small, replace(result, coarse_labels=result.coarse_labels[:, :5]))


def test_the_coarse_map_alone_is_that_of_the_run(small, result):
    np.testing.assert_array_equal(competitors.coarse_map(small, result), result.coarse_labels)


def test_nearest_labels_are_those_of_the_cells(small, result):
    np.testing.assert_array_equal(competitors.nearest(small, result), np.kron(result.coarse_labels, np.ones((8, 8))))


def test_joint_bilateral_upsampling_follows_the_pictures_edge(small, result):
    image, coarse = np.zeros((64, 128, 3), np.uint8), np.zeros((8, 16), np.int32)
    image[:, 61:], coarse[:, 8:] = 255, 1  # the picture's edge lies 3 pixels before that of the cells
    labels = competitors.joint_bilateral(small, replace(result, image=image, coarse_labels=coarse))
    np.testing.assert_array_equal(labels, image[..., 0] == 255)


def test_colour_and_place_parts_plain_halves(small, result):
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, 40:] = 255
    labels = competitors.colour_and_place(small, replace(result, image=image, settings=quick(num_segments=2)))
    assert len(np.unique(labels)) == 2
    np.testing.assert_array_equal(labels == labels[0, 0], image[..., 0] == 0)


def test_divergence_is_the_mean_of_both_directions():
    p, q = (
        np.random.default_rng(0).dirichlet(np.ones(6), 7).reshape(7, 6)[:3],
        np.random.default_rng(1).dirichlet(np.ones(6), 4),
    )
    expected = [[(entropy(a, b) + entropy(b, a)) / 2 for b in q] for a in p]
    np.testing.assert_allclose(competitors._divergence(torch.tensor(p), torch.tensor(q)), expected, rtol=1e-6)


def test_diffsegs_maps_are_the_layers_own_attention(small, result):
    maps = competitors._self_attention(small, result, 300)
    assert maps.shape == (16 * 32, 16, 32)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, rtol=1e-4)
    one = replace(small.layers, self_attention=small.layers.self_attention[:1])  # of the latents' own resolution
    seen = {}
    attention = small.unet.get_submodule(one.self_attention[0])
    handle = attention.register_forward_pre_hook(lambda _m, args: seen.setdefault("x", args[0]))
    layers, small.layers = small.layers, one
    try:
        maps = competitors._self_attention(small, result, 300)
    finally:
        small.layers = layers
        handle.remove()
    with torch.inference_mode():
        q, k = (attention.head_to_batch_dim(f(seen["x"])) for f in (attention.to_q, attention.to_k))
        expected = attention.get_attention_scores(q, k).mean(0)
    np.testing.assert_allclose(maps.flatten(1), expected, atol=1e-5)


def test_diffseg_merges_more_where_more_divergence_is_allowed(small, result):
    counts = [len(np.unique(competitors.diffseg(small, result, threshold=t))) for t in (0.0, 0.05, 100.0)]
    assert counts[0] >= counts[1] >= counts[2] == 1 and counts[0] > 1


def test_a_normalized_cut_finds_blocks_and_leaves_one_whole():
    affinity = np.full((9, 9), 0.01)
    for block in (np.s_[:2], np.s_[2:5], np.s_[5:]):
        affinity[block, block] = 1
    parts = competitors._cut(affinity, np.arange(9), 0.5)
    assert sorted(part.tolist() for part in parts) == [[0, 1], [2, 3, 4], [5, 6, 7, 8]]
    assert [part.tolist() for part in competitors._cut(np.ones((4, 4)), np.arange(4), 0.5)] == [[0, 1, 2, 3]]


# --- Runs


FEW = ("EmerDiff", "bilinear", "DiffCut")


def evaluation(**changes) -> Evaluation:
    defaults = {"dataset": "scenes:5..7", "train": "scenes:10..11", "model": "small"}
    return Evaluation(**defaults | {"settings": quick(num_segments=3), "methods": FEW} | changes)


def finish(pipe, evaluated, out):
    datasets = (source and open_dataset(source, 128) for source in (evaluated.dataset, evaluated.train))
    return list(run(pipe, evaluated, *datasets, out))


def without_seconds(summary: dict) -> dict:
    scores = {method: {k: v for k, v in of.items() if k != "seconds"} for method, of in summary["scores"].items()}
    return summary | {"scores": scores}


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The folder and summary of a run that was not broken off."""
    out = tmp_path_factory.mktemp("whole")
    assert finish(small, evaluation(), out) == [(i, 5) for i in range(1, 6)]
    return out, summarize(out)


def test_a_summary_has_every_score_of_every_method_with_intervals(whole):
    _, summary = whole
    names = {"traditional", "modified", "hungarian", "majority", *(f"boundary F {t} px" for t in (1, 2, 4))}
    assert summary["pictures"] == 3 and summary["errors"] == {} and set(summary["scores"]) == set(FEW)
    for scores in summary["scores"].values():
        assert set(scores) == names | {"seconds"} and all(0 <= scores[name] <= 1 for name in names)
        assert scores["majority"] >= scores["hungarian"] and scores["majority"] >= scores["traditional"]
    assert set(summary["gains"]) == {"bilinear", "DiffCut"}
    for method, gains in summary["gains"].items():
        for name, (gain, low, high) in gains.items():
            assert gain == summary["scores"]["EmerDiff"][name] - summary["scores"][method][name]
            assert low <= high
    table = markdown(summary).splitlines()
    assert len(table) == 2 + 3 and len({line.count("|") for line in table}) == 1
    assert len(figure(summary).axes) == 7


def test_a_run_that_breaks_off_goes_on_and_no_picture_is_lost_or_counted_twice(small, whole, tmp_path):
    begun = run(
        small, evaluation(), *(open_dataset(source, 128) for source in ("scenes:5..7", "scenes:10..11")), tmp_path
    )
    next(begun), next(begun)
    begun.close()
    log = tmp_path / "lines-0.jsonl"
    log.write_text(log.read_text()[:-30])  # as if it was killed while it wrote its second line
    assert finish(small, evaluation(), tmp_path) == [(i, 4) for i in range(1, 5)]
    assert finish(small, evaluation(), tmp_path) == []
    assert [(line["kind"], line["picture"]) for line in lines(tmp_path)] == [
        *(("pictures", str(seed)) for seed in (5, 6, 7)), ("train", "10"), ("train", "11"),
    ]  # fmt: skip
    assert without_seconds(summarize(tmp_path)) == without_seconds(whole[1])


def test_two_processes_give_the_result_of_one(checkpoint, whole, tmp_path):
    options = {"--out": tmp_path, "--train": "scenes:10..11", "--model": checkpoint, "--dtype": "float32"}
    options |= {"--num-segments": 3, "--num-inference-steps": 10, "--modulation-timestep": 301}
    options |= {"--image-area": 64 * 64, "--kmeans-n-init": 1}
    words = [str(word) for pair in options.items() for word in pair]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    command = [*launch, "emerdiff", "evaluate", "scenes:5..7", *words, "--methods", *FEW]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(file.name for file in tmp_path.glob("lines-*")) == ["lines-0.jsonl", "lines-1.jsonl"]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert without_seconds(summary) == json.loads(json.dumps(without_seconds(whole[1])))
    assert done.stdout.count("| EmerDiff |") == 1 and (tmp_path / "summary.png").stat().st_size > 10_000


def test_a_broken_picture_is_written_down_and_the_others_are_scored(capsys, checkpoint, folder, tmp_path):
    (folder / "images" / "a.jpg").write_bytes(b"no picture")
    arguments = ["evaluate", folder, "--out", tmp_path / "out", "--model", checkpoint, "--device", "cpu"]
    arguments += [
        "--image-area",
        4096,
        "--num-segments",
        3,
        "--num-inference-steps",
        10,
        "--methods",
        "EmerDiff",
        "bilinear",
    ]
    assert main([*map(str, arguments)]) == 1
    printed = capsys.readouterr()
    assert "a: a.jpg is a text file, not a picture" in printed.err and "1 pictures of" in printed.out
    scores = json.loads((tmp_path / "out" / "summary.json").read_text())["scores"]
    assert "modified" not in scores["EmerDiff"] and 0 < scores["EmerDiff"]["majority"] <= 1


def test_a_folder_belongs_to_one_evaluation(tmp_path):
    claim(tmp_path, evaluation())
    claim(tmp_path, evaluation())
    with pytest.raises(ValueError, match=r"holds an evaluation with other settings, methods: choose"):
        claim(tmp_path, evaluation(settings=quick(seed=1), methods=("EmerDiff",)))


def test_a_folder_with_files_from_elsewhere_is_no_place_for_an_evaluation(tmp_path):
    (tmp_path / "summary.md").write_text("mine")
    with pytest.raises(ValueError, match=r"holds files from elsewhere, as summary\.md: choose a new folder"):
        claim(tmp_path, evaluation())
    assert [file.name for file in tmp_path.iterdir()] == ["summary.md"]


@pytest.mark.parametrize(
    "methods, expected",
    [
        (("EmerDiff", "magic"), "methods must be among EmerDiff, .*, not 'magic'"),
        (FEW + FEW[:1], "named only once"),
    ],
)
def test_methods_that_there_are_not_are_refused(tmp_path, methods, expected):
    with pytest.raises(ValueError, match=expected):
        claim(tmp_path / "new", evaluation(methods=methods))
    assert not (tmp_path / "new").exists()
