"""Which model the page starts with, over all facts."""

import re
from itertools import product
from pathlib import Path

import pytest

from emerdiff.loading import AUTOMATIC, CHECKPOINTS, MINIATURE
from emerdiff.starting import STABLE_DIFFUSION, Facts, at_hand, start

ALL = list(product(("cuda", "mps", "cpu"), (True, False), (True, False)))
OWN = "/models/mine.safetensors"


@pytest.mark.parametrize(("device", "zerogpu", "weights"), ALL)
def test_stable_diffusion_comes_first_where_a_gpu_and_its_weights_are_there_and_otherwise_the_miniature(
    device, zerogpu, weights
):
    begun, gpu = start(Facts(device, zerogpu, weights)), zerogpu or device == "cuda"
    if gpu and weights:
        assert (begun.model, begun.photographs_first, begun.note) == (STABLE_DIFFUSION, True, "")
    else:
        assert (begun.model, begun.photographs_first) == (MINIATURE, False)
        assert bool(begun.note) == gpu and (not gpu or "Choosing Stable Diffusion fetches them" in begun.note)
    assert begun.autoencoder is None and begun.quick


@pytest.mark.parametrize(("device", "zerogpu", "weights"), ALL)
@pytest.mark.parametrize("wish", [OWN, f" {OWN}\n", STABLE_DIFFUSION, MINIATURE])
def test_the_owners_wish_comes_first_everywhere(device, zerogpu, weights, wish):
    begun, gpu = start(Facts(device, zerogpu, weights, wish)), zerogpu or device == "cuda"
    assert (begun.model, begun.note) == (wish.strip(), "")
    assert begun.photographs_first == (wish != MINIATURE) and begun.quick == (gpu or wish == MINIATURE)
    assert begun.autoencoder == (None if gpu or wish == MINIATURE else AUTOMATIC)


def test_an_empty_wish_is_none():
    assert start(Facts("cuda", False, True, " ")) == start(Facts("cuda", False, True))


def test_a_space_fetches_the_weights_that_it_starts_with(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    header = (Path(__file__).parents[1] / "README.md").read_text().split("---")[1]
    name, files, revision = re.search(r"preload_from_hub:\n  - (\S+) (\S+) ([0-9a-f]{40})\n", header).groups()
    assert (name, revision) == (STABLE_DIFFUSION, CHECKPOINTS[STABLE_DIFFUSION])
    folder = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / revision
    for file in files.split(","):
        assert not at_hand()
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    assert at_hand()


def test_the_guides_command_fetches_what_is_then_at_hand():
    guide = (Path(__file__).parents[1] / "docs" / "guide.md").read_text()
    assert f"hf download {STABLE_DIFFUSION} --revision {CHECKPOINTS[STABLE_DIFFUSION]} " in guide.replace("\\\n", "")


@pytest.mark.parametrize("name", ["/models/gone", "~/gone", "a/b/c", "nobody/nothing"])
def test_what_is_not_in_the_cache_is_not_at_hand(name):
    assert not at_hand(name)


def test_weights_are_at_hand_once_every_network_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / f"models--{STABLE_DIFFUSION.replace('/', '--')}" / "snapshots" / CHECKPOINTS[STABLE_DIFFUSION]
    for half in (".fp16", ""):
        for name in ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
            assert not at_hand()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}{half}.safetensors").write_text("weights")
        assert not at_hand()
        (folder / "model_index.json").write_text("{}")
        assert at_hand() and at_hand(half=False) == (half == "")
        for file in folder.rglob("*.*"):
            file.unlink()
