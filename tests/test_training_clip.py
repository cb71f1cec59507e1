"""Training of the small CLIP: what it is told of pictures, its losses, and a short run that is resumed."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel

from emerdiff.imagetext import load_image_text
from emerdiff.miniature import train_clip
from emerdiff.miniature.photographs import Photograph, Photographs
from emerdiff.miniature.scenes import CLASSES, draw_details, draw_scene
from emerdiff.miniature.train_clip import PATCH, SHARES, SIDE, WINDOW, Sizes, listed_loss, pasted, told_loss
from emerdiff.miniature.words import SYNONYMS
from emerdiff.miniature.world.captions import AMOUNTS


@pytest.mark.parametrize("seed, kind", [(5, None), (6, "room"), (7, "portrait")])
def test_a_detail_tells_all_that_is_seen_in_it_and_about_how_much(seed, kind):
    scene, details = draw_scene(seed, 96, kind), draw_details(seed, 96, 32, kind, count=6)
    windows = np.lib.stride_tricks.sliding_window_view(scene.image, (32, 32, 3)).reshape(65, 65, 32, 32, 3)
    limits = [1.01, *AMOUNTS.values()]
    for detail in details:
        (y, x), *_ = np.argwhere((windows == detail.image).all((2, 3, 4)))
        shown = scene.labels[y : y + 32, x : x + 32]
        shares = np.bincount(shown.ravel(), minlength=len(CLASSES)) / shown.size
        order = [AMOUNTS[word] for word in detail.amounts.values()]
        assert order == sorted(order, reverse=True) and {*detail.amounts} <= {*SYNONYMS}
        for part in ("sky", "road", "floor", "mountain", "pavement"):  # each of these is a noun of one part
            share = shares[CLASSES.index(part)]
            assert (part in detail.amounts) == (share >= AMOUNTS["a trace"])
            if part in detail.amounts:
                least = AMOUNTS[detail.amounts[part]]
                assert least <= share < limits[limits.index(least) - 1]
    assert {*SHARES} == {*AMOUNTS}


def test_photographs_are_told_by_the_words_of_their_captions():
    photograph = Photograph(None, ("A dog runs on the grass", "a photo of a fire truck"))
    assert train_clip.words_of(photograph) == ("dog", "fire", "fire truck", "grass", "runs", "truck")
    often = Photographs((photograph,) * train_clip.FREQUENT + (Photograph(None, ("a cat",)),))
    assert "dog" in train_clip.frequent_words(often) and "cat" not in train_clip.frequent_words(often)


def test_what_is_pasted_comes_with_the_words_of_where_it_is_from():
    shares = torch.eye(4)  # each picture shows one thing only
    pictures = torch.arange(4.0)[:, None, None, None].expand(4, 3, WINDOW, WINDOW)
    torch.manual_seed(3)
    mixed, may, about = pasted(pictures, shares)
    of = mixed[:, 0, ::PATCH, ::PATCH].long()  # (4, CELLS, CELLS)
    torch.testing.assert_close(
        mixed, of.float()[:, None].repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).expand(4, 3, -1, -1)
    )
    torch.testing.assert_close(may, torch.nn.functional.one_hot(of, 4).bool())
    assert (of[:2] == torch.tensor([0, 1])[:, None, None]).any() and (of[:2] >= 2).any()
    torch.testing.assert_close(about, torch.nn.functional.one_hot(of, 4).float().mean((1, 2)))
    torch.testing.assert_close(mixed[2:], pictures[2:])


def logits_of(probabilities: list) -> torch.Tensor:
    """(1, 1, patches, nouns)"""
    return torch.tensor(probabilities).clamp(min=1e-9).log()[None, None]


def test_the_loss_of_scenes_is_least_where_patches_show_what_is_listed_and_as_much_of_it():
    shares = torch.tensor([[0.75, 0.25, 0.0]])
    may = (shares > 0)[:, None, None].expand(1, 1, 4, 3)
    right = [[1.0, 0, 0]] * 3 + [[0.0, 1, 0]]
    all_sky, strange, vague = [[1.0, 0, 0]] * 4, right[:3] + [[0.0, 0, 1]], [[0.75, 0.25, 0]] * 4
    losses = [listed_loss(logits_of(p), may, shares).item() for p in (right, vague, all_sky, strange)]
    assert losses[0] == pytest.approx(0, abs=1e-4) and losses[0] < losses[1] < losses[2] < losses[3]
    assert losses[1] == pytest.approx(-0.3 * (math.log(0.75) + math.log(0.25)) / 2, abs=1e-4)  # nowhere for sure


def test_the_loss_of_photographs_asks_which_of_them_shows_a_word():
    told = torch.eye(2).bool()
    logits = torch.zeros(2, 3, 2)
    assert told_loss(logits, told).item() == pytest.approx(math.log(2))
    logits[0, 1, 0] = logits[1, 2, 1] = 20  # one patch is enough
    assert told_loss(logits, told).item() < 0.01
    assert told_loss(-logits, told).item() > math.log(2)


def test_a_short_run_learns_is_resumed_and_gives_a_model_that_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(Sizes, "of", lambda device: Sizes(8, 0, 32, 0, 1, 60))
    monkeypatch.setattr(train_clip, "UNSEEN", train_clip.UNSEEN[:1])
    options = {"photographs": Photographs(), "start": None, "first_seed": train_clip.FIRST_SEED}
    device = torch.device("cpu")
    train_clip.train(tmp_path, device, minutes=0.05, **options)
    steps = torch.load(tmp_path / "checkpoint-numbers.pt")["step"]
    before = load_image_text(tmp_path / "clip", device="cpu").clip.state_dict()
    train_clip.train(tmp_path, device, minutes=0.1, **options)
    assert torch.load(tmp_path / "checkpoint-numbers.pt")["step"] > steps > 0
    model = load_image_text(tmp_path / "clip", device="cpu")
    assert model.side == SIDE and any((w != before[name]).any() for name, w in model.clip.state_dict().items())
    assert model.embed(np.zeros((100, 150, 3), np.uint8)).shape == (SIDE // PATCH, SIDE // PATCH * 3 // 2, 128)
    assert CLIPModel.from_pretrained(tmp_path / "clip").dtype == torch.float16
    assert AutoTokenizer.from_pretrained(tmp_path / "clip")("a house").input_ids
    assert sum(file.stat().st_size for file in (tmp_path / "clip").iterdir()) < 12 * 2**20
