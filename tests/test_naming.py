"""Names: MaskCLIP against its equations, words, what segments are called, and models from elsewhere."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from emerdiff import Segmentation, Settings
from emerdiff.exporting import Legend
from emerdiff.imagetext import CLIPS, TEMPLATES, Clip, Map, load_image_text, read_map
from emerdiff.maskclip import dense_embeddings, patch_embeddings, starts
from emerdiff.masks import upsample_nearest
from emerdiff.miniature.model import new_tokenizer
from emerdiff.miniature.scenes import CLASSES, draw_scene
from emerdiff.miniature.train_clip import named
from emerdiff.miniature.words import PARTS, SYNONYMS, WORD_OF_CLASS, WORDS
from emerdiff.naming import Words, name_segments, names

SIDE, PATCH = 16, 4  # of the tiny CLIP


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return new_tokenizer(["a photo of a red house", "two cars on a street"])


@pytest.fixture(scope="module")
def clip(tokenizer) -> CLIPModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "intermediate_size": 37, "num_hidden_layers": 3, "num_attention_heads": 2}
    vision = shape | {"image_size": SIDE, "patch_size": PATCH}
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = shape | {"vocab_size": len(tokenizer), "max_position_embeddings": 77} | ids
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=20)).eval()
    for weight in clip.parameters():  # biases and norms count, too
        torch.nn.init.normal_(weight, std=0.3)
    return clip


@pytest.fixture(scope="module")
def model(clip, tokenizer) -> Clip:
    return Clip("tiny", clip, tokenizer, side=32, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def folder(clip, tokenizer, tmp_path):
    clip.save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    CLIPImageProcessor(size={"shortest_edge": 40}, image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def result() -> Segmentation:
    """Four segments of a random picture, 40 x 24 pixels; the last has no pixels."""
    rng = np.random.default_rng(0)
    responses = np.abs(rng.normal(size=(4, 1, 3, 5))).repeat(8, 2).repeat(8, 3).repeat(3, 1).astype(np.float32)
    responses[3] = 0
    image = rng.integers(0, 256, (24, 40, 3), np.uint8)
    coarse, features = np.zeros((3, 5), np.int32), np.zeros((3, 5, 2), np.float32)
    return Segmentation(image, coarse, features, responses, (40, 24), Settings(num_segments=4), "none")


def by_hand(clip: CLIPModel, window: torch.Tensor) -> torch.Tensor:
    """MaskCLIP of one window, from the whole network's hidden states and the weights: (rows, columns, d)."""
    vision, weights = clip.vision_model, clip.state_dict()
    before_last = vision(pixel_values=window[None], output_hidden_states=True).hidden_states[-2][0, 1:]  # (patches, c)
    last = "vision_model.encoder.layers.2."

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    value = linear(norm(before_last, f"{last}layer_norm1"), f"{last}self_attn.v_proj")
    out = norm(linear(value, f"{last}self_attn.out_proj"), "vision_model.post_layernorm")
    return (out @ weights["visual_projection.weight"].T).reshape(SIDE // PATCH, SIDE // PATCH, -1)


# ---------------------------------------------------------------- MaskCLIP


@torch.no_grad()
def test_a_windows_patches_are_those_of_the_equations(clip):
    windows = torch.randn(2, 3, SIDE, SIDE)
    expected = torch.stack([by_hand(clip, window) for window in windows])
    torch.testing.assert_close(patch_embeddings(clip, windows), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (28, 44)])
@torch.no_grad()
def test_windows_cover_pictures_of_any_size_and_are_averaged_where_they_overlap(clip, size):
    pixels = torch.randn(3, *size)
    rows, columns = (list(starts(length, SIDE, PATCH)) for length in size)
    grid = [length // PATCH for length in size]
    found = [[[] for _ in range(grid[1])] for _ in range(grid[0])]
    for y in rows:
        for x in columns:
            for i, row in enumerate(by_hand(clip, pixels[:, y : y + SIDE, x : x + SIDE])):
                for j, embedding in enumerate(row):
                    found[y // PATCH + i][x // PATCH + j].append(embedding)
    expected = torch.stack([torch.stack([torch.stack(cell).mean(0) for cell in row]) for row in found])
    torch.testing.assert_close(dense_embeddings(clip, pixels, batch=3), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", range(SIDE, 6 * SIDE, PATCH))
def test_windows_overlap_by_about_half_and_reach_the_end(length):
    places = list(starts(length, SIDE, PATCH))
    gaps = np.diff(places)
    assert places[0] == 0 and places[-1] == length - SIDE
    assert all(place % PATCH == 0 for place in places) and (not len(gaps) or 0 < gaps.max() <= SIDE // 2 + PATCH)


def test_a_picture_is_resized_to_the_models_side_and_keeps_its_shape(model):
    grid = model.embed(np.zeros((64, 150, 3), np.uint8)).shape
    assert grid == (8, 19, 20)  # 32 pixels and 75 of them, in patches of 4


def test_a_plain_picture_is_the_same_at_any_size(model):
    grey = [model.embed(np.full((side, side, 3), 90, np.uint8)) for side in (48, 200)]
    np.testing.assert_allclose(*grey, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_word_is_the_mean_of_its_prompts(model, clip, tokenizer):
    word, vector = "red house", np.random.default_rng(0).normal(size=(1, 20)).astype(np.float32)
    total = 0
    for template in TEMPLATES:  # one by one, so without padding
        tokens = tokenizer(template.format(word), return_tensors="pt")
        total += F.normalize(clip.get_text_features(**tokens).pooler_output[0], dim=0)
    expected = F.cosine_similarity(total, torch.from_numpy(vector[0]), dim=0)
    both = model.similarities(vector, ["street", word])
    assert both.shape == (1, 2) and both[0, 1] == pytest.approx(expected.item(), abs=1e-5)
    np.testing.assert_array_equal(model.similarities(vector, ["street", word]), both)  # now from memory


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    "given, groups",
    [
        ("sky, tree ,house", [["sky"], ["tree"], ["house"]]),
        ("sky\nsofa | couch,\n\n,car\n", [["sky"], ["sofa", "couch"], ["car"]]),
        (["blue  sky", "b|c"], [["blue sky"], ["b", "c"]]),
        ("Ärmel,猫|😺", [["Ärmel"], ["猫", "😺"]]),
        ("a||b|,c", [["a", "b"], ["c"]]),
    ],
)
def test_words_are_read_from_text_or_lists(given, groups):
    words = Words.of(given)
    assert [list(group) for group in words.groups] == groups and words.names == tuple(g[0] for g in groups)
    assert Words.of(str(words)) == words and Words.of(words) is words


@pytest.mark.parametrize(
    "given, expected",
    [
        ("", "at least two words, since a name is a choice between words: there is none"),
        (" ,|, \n", "there is none"),
        ("sky|heaven", "there is only 'sky'"),
        ("sky,Sky", "'Sky' is there twice"),
        ("sofa|couch,chair|COUCH", "'COUCH' is there twice"),
        ("sky," + "x" * 81, "at most 80 characters, not 81"),
        (",".join(f"w{i}|v{i}" for i in range(501)), "1002 words, synonyms included; at most 1000"),
    ],
)
def test_words_that_make_no_sense_are_refused(given, expected):
    with pytest.raises(ValueError, match="^.*" + expected):
        Words.of(given)


def test_the_drawn_worlds_words_cover_its_parts_once_and_training_knows_them():
    parts = [part for group in PARTS.values() for part in group]
    assert sorted(parts) == sorted(CLASSES) and len(WORDS.groups) == 23
    assert [WORDS.groups[i][0] for i in WORD_OF_CLASS[[CLASSES.index("roof"), CLASSES.index("crown")]]] == [
        "house",
        "tree",
    ]
    trained = {word for ways in SYNONYMS.values() for word in ways}
    assert trained >= set(WORDS.every)


# ---------------------------------------------------------------- names


class Fixed:
    """An image–text model with known similarities: embeddings are similarities themselves."""

    scale = 1.0

    def __init__(self, dense, **columns):
        self.dense, self.columns = np.array(dense, np.float32), list(columns)

    def embed(self, image):
        return self.dense

    def similarities(self, embeddings, words):
        return embeddings[:, [self.columns.index(word) for word in words]]


def test_embeddings_are_averaged_over_a_segment_before_they_are_compared():
    dense = np.array([[[4, 0, 0], [0, 2, 0]]], np.float32)  # one row of two cells, which know sky and car
    labels = np.array([[0, 0, 0, 1], [0, 0, 1, 1]])  # cells are two pixels wide: 0 has 4 pixels of one, 1 of the other
    found = names([(labels, dense)], Words.of("sky,car,tree"), Fixed(dense, sky=0, car=1, tree=2), 3)
    np.testing.assert_allclose(found.similarities[:2], [[16 / 5, 2 / 5, 0], [0, 2, 0]])
    e = np.exp([3.2, 0.4, 0])
    np.testing.assert_allclose(found.probabilities[0], e / e.sum(), rtol=1e-5)
    assert found.name(0) == "sky" and found.name(1) == "car"
    assert [r.word for r in found.ranked(0)] == ["sky", "car", "tree"]
    assert found.margins[0] == pytest.approx((e[0] - e[1]) / e.sum(), rel=1e-5)


def test_a_segment_of_several_pictures_goes_by_its_pixels_in_all_of_them():
    first, second = np.array([[[6.0, 0.0]]], np.float32), np.array([[[0.0, 4.0]]], np.float32)
    one, three = np.zeros((1, 1), int), np.array([[0, 0, 0, 1]])
    found = names([(one, first), (three, second)], Words.of("sky,car"), Fixed(first, sky=0, car=1), 3)
    np.testing.assert_allclose(found.similarities, [[6 / 4, 3 * 4 / 4], [0, 4], [np.nan, np.nan]])
    assert [found.name(i) for i in range(3)] == ["car", "car", None]


def test_a_segment_without_pixels_has_no_name_and_an_uncertain_one_says_between_what():
    dense = np.array([[[1.0, 0.9, 0.2]]], np.float32)
    found = names([(np.zeros((2, 2), int), dense)], Words.of("boat,car,sky"), Fixed(dense, boat=0, car=1, sky=2), 2)
    assert found.name(0) is None and found.told(0) == "unsure: boat or car" and found.name(0, sure=0.3) == "boat"
    assert found.name(1) is None and found.told(1) == "" and found.ranked(1) == () and np.isnan(found.margins[1])
    assert found.best().tolist() == [0, -1]
    summary = json.loads(json.dumps([found.summary(i) for i in range(2)], allow_nan=False))
    assert summary[0]["name"] is None and summary[0]["words"][0]["word"] == "boat" and summary[1]["words"] == []


def test_the_best_synonym_counts_and_the_first_is_the_name():
    dense = np.array([[[0.0, 5.0, 4.0]]], np.float32)
    model = Fixed(dense, sofa=0, couch=1, tree=2)
    found = names([(np.zeros((2, 2), int), dense)], Words.of("sofa|couch,tree"), model, 1)
    np.testing.assert_array_equal(found.similarities, [[5, 4]])
    assert found.name(0) == "sofa" and found.words == ("sofa", "tree")


def test_name_segments_puts_it_together(result, model):
    found = name_segments(result, "house, street, red", model)
    twice = name_segments([result, result], "house, street, red", model)
    np.testing.assert_allclose(twice.probabilities, found.probabilities, rtol=1e-5)
    dense, labels = model.embed(result.image), result.labels
    cells = upsample_nearest(np.arange(dense[..., 0].size).reshape(dense.shape[:2]), labels.shape)
    for i in range(result.settings.num_segments):
        if (labels == i).any():
            mean = dense.reshape(-1, dense.shape[-1])[cells[labels == i]].mean(0, dtype=np.float64)
            expected = model.similarities(mean[None].astype(np.float32), ["house", "street", "red"])[0]
            np.testing.assert_allclose(found.similarities[i], expected, atol=1e-5)
    assert np.isclose(np.nansum(found.probabilities, 1), 1).any()


def test_names_can_be_exported(result, model):
    found = name_segments(result, "house, street", model)
    k = result.settings.num_segments
    Legend(tuple(found.name(i) or "" for i in range(k)), np.zeros((k, 3), np.uint8))


# ---------------------------------------------------------------- models


def test_a_clip_is_read_from_a_folder_as_it_was_saved(folder, clip):
    read = load_image_text(folder, device="cpu")
    assert (
        read.side == 40 and read.mean == (0.1, 0.2, 0.3) and read.scale == pytest.approx(clip.logit_scale.exp().item())
    )
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    pixels = CLIPImageProcessor.from_pretrained(folder)(image, return_tensors="pt", do_center_crop=False).pixel_values[
        0
    ]
    with torch.no_grad():
        np.testing.assert_allclose(read.embed(image), dense_embeddings(clip, pixels), rtol=1e-4, atol=1e-4)


def test_a_clip_that_sees_one_square_is_given_pictures_of_twice_its_side(folder):
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": SIDE}))
    assert load_image_text(folder, device="cpu").side == 2 * SIDE


def damaged(folder, fault):
    config = json.loads((folder / "config.json").read_text())
    if fault == "siglip":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    elif fault == "pickled":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif fault == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    else:
        weights = load_file(folder / "model.safetensors")
        if fault == "lacks":
            del weights["visual_projection.weight"]
        else:
            weights["visual_projection.weight"][0, 0] = math.nan
        save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "fault, expected",
    [
        ("siglip", "it is a siglip, and names need a whole clip"),
        ("pickled", "pickled weights are not loaded"),
        ("no tokenizer", r"its tokenizer has \d+ tokens, but its text_encoder"),
        ("lacks", "lacks weights .*visual_projection"),
        ("nan", "is not finite"),
    ],
)
def test_a_clip_that_cannot_be_used_is_refused_with_the_reason_and_what_loads_instead(folder, fault, expected):
    damaged(folder, fault)
    with pytest.raises(ValueError, match=f"cannot load '.*tiny' for names: .*{expected}.*'miniature'"):
        load_image_text(folder, device="cpu")


def test_a_clip_on_the_hub_is_asked_for_at_its_revision_and_needs_the_network(monkeypatch):
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["revision"], options["allow_patterns"]))
        raise OSError("no network")

    monkeypatch.setattr("emerdiff.imagetext.snapshot_download", snapshot_download)
    name = next(iter(CLIPS))
    with pytest.raises(ValueError, match=f"cannot load '{name}' for names: no network"):
        load_image_text(name)
    assert asked == [(name, CLIPS[name], ["*.json", "*.txt"])]  # small files first


# ---------------------------------------------------------------- maps


def test_scores_from_elsewhere_name_segments(tmp_path, result):
    scores = np.zeros((2, 2, 3), np.float32)
    scores[..., 1] = 3
    np.savez(tmp_path / "tcl.npz", scores=scores, words=np.array(["Sky", "tree", "car"]))
    found = name_segments(result, "car,sky|tree", load_image_text(tmp_path / "tcl.npz"))
    shown = np.unique(result.labels)
    assert {found.name(i) for i in shown} == {"sky"}
    np.testing.assert_allclose(found.similarities[shown], np.tile([0, 3], (len(shown), 1)))


def test_embeddings_from_elsewhere_are_compared_by_their_cosines():
    texts = np.array([[2.0, 0], [0, 3]], np.float32)
    model = Map("clippy", np.array([[[3.0, 4.0]]], np.float32), ("sky", "car"), texts, 10.0)
    np.testing.assert_allclose(model.similarities(np.array([[3.0, 4.0]]), ["car", "sky"]), [[0.8, 0.6]], rtol=1e-6)


@pytest.mark.parametrize(
    "arrays, expected",
    [
        ({"scores": np.zeros((2, 2, 3))}, "must have words"),
        ({"words": ["a", "b"]}, "either scores or embeddings"),
        ({"words": ["a", "b"], "embeddings": np.zeros((2, 2, 4))}, "needs texts"),
        ({"words": ["a", "b"], "scores": np.zeros((2, 2, 3))}, r"scores must be \(h, w, 2\)"),
        ({"words": ["a", "A"], "scores": np.zeros((2, 2, 2))}, "words must be distinct"),
        ({"words": ["a", "b"], "scores": np.zeros((2, 2))}, "rows, columns and values"),
        ({"words": ["a", "b"], "scores": np.full((2, 2, 2), np.nan)}, "must be floating-point and finite"),
        ({"words": ["a", "b"], "scores": np.zeros((2, 2, 2)), "scale": -1.0}, "scale must be a number above 0"),
        ({"words": ["a"], "embeddings": np.zeros((2, 2, 4)), "texts": np.zeros((1, 3))}, r"texts must be \(1, 4\)"),
        ({"words": np.array(["a", None], object), "scores": np.zeros((2, 2, 2))}, "cannot read"),
    ],
)
def test_a_map_that_does_not_fit_together_is_refused(tmp_path, arrays, expected):
    np.savez(tmp_path / "map.npz", **arrays)
    with pytest.raises(ValueError, match=expected):
        read_map(tmp_path / "map.npz")


def test_a_map_is_asked_only_for_words_that_it_has(tmp_path):
    model = Map("map", np.zeros((1, 1, 2)), ("grass", "river"))
    with pytest.raises(ValueError, match="the map has no word 'gras'; it has 'grass' among 2"):
        model.similarities(np.zeros((1, 2)), ["gras"])
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match="cannot read '.*broken.npz' as a map"):
        read_map(tmp_path / "broken.npz")


def test_the_small_clip_names_true_regions_of_scenes_that_it_has_not_seen():
    scenes = [draw_scene(610_000 + i, 256, "room" if i % 4 == 3 else None) for i in range(12)]
    pairs = named(load_image_text(device="cpu"), scenes)
    assert len(pairs) > 40 and np.mean([true == best for true, best in pairs]) > 0.45  # chance is 0.04
