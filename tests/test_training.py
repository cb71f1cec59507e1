"""What the miniature's training stands on: the optimizer of its layers, and runs that go on where they stopped."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from emerdiff.miniature.train import (
    LayersMuon,
    Run,
    annealed,
    as_matrix,
    draw_timesteps,
    inner_weights,
    load_tokenizer,
    optimize,
)
from emerdiff.pipeline import EmerDiffPipeline


@pytest.fixture
def layer() -> torch.nn.Conv2d:
    torch.manual_seed(0)
    return torch.nn.Conv2d(6, 8, 3).to(memory_format=torch.channels_last)


def test_a_step_on_a_convolution_is_muons_step_on_its_matrix(layer):
    matrix = torch.nn.Parameter(as_matrix(layer.weight.detach()).clone())
    options = dict(lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    ours, theirs = LayersMuon([layer.weight], **options), torch.optim.Muon([matrix], **options)
    before = layer.weight.detach().clone()
    for seed in range(3):
        torch.manual_seed(seed)
        layer.weight.grad = torch.randn(8, 6, 3, 3)  # channels first, as a backward pass may leave it
        matrix.grad = layer.weight.grad.permute(0, 2, 3, 1).reshape(8, -1)
        ours.step()
        theirs.step()
    assert torch.equal(as_matrix(layer.weight), matrix)
    assert not torch.allclose(layer.weight, before, atol=1e-3)


def test_the_update_of_a_layer_is_orthogonal(layer):
    optimizer = LayersMuon([layer.weight], weight_decay=0, adjust_lr_fn="original", lr=1.0)
    before = as_matrix(layer.weight.detach()).clone()
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    singular = torch.linalg.svdvals(as_matrix(layer.weight.detach()) - before)
    assert singular.min() > 0.6 and singular.max() < 1.3  # what torch's five iterations leave: about 1


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> CLIPTokenizer:
    return load_tokenizer(tmp_path_factory.mktemp("run") / "tokenizer")


def new_run(out: Path, tokenizer: CLIPTokenizer) -> Run:
    return Run(out, torch.device("cpu"), 10, 256, tokenizer, seed=0)


def test_a_run_keeps_the_tokenizer_that_it_learned(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert tokenizer.model_max_length == 77
    assert len(tokenizer("a brick house with a red roof").input_ids) < 12  # words, not letters
    assert load_tokenizer(tmp_path / "tokenizer").get_vocab() == tokenizer.get_vocab()


def test_a_resumed_run_goes_on_as_the_first_would_have(tmp_path, tokenizer):
    def train_a_step(run: Run, seed: int) -> None:
        torch.manual_seed(seed)
        x, t = torch.randn(2, 4, 16, 16), torch.tensor([900, 100])
        text = run.text_encoder(run.tokens(["a house", "a tree"])).last_hidden_state
        loss = (run.unet(x, t, text).sample - x).square().mean()
        optimize([run.muon, run.adamw], 1e-3, run.denoiser, run.average, loss)

    first = new_run(tmp_path, tokenizer)
    weights, others = inner_weights(first.denoiser)
    assert len(weights) + len(others) == len(list(first.denoiser.parameters()))
    train_a_step(first, 1)
    first.step, first.encoded = 7, True
    first.vae.register_to_config(scaling_factor=0.5)
    first.save(next_seed=1_000_123)
    second = new_run(tmp_path, tokenizer)
    second.resume(tmp_path / "checkpoint.pt")
    assert (second.step, second.encoded, second.vae.config.scaling_factor) == (7, True, 0.5)
    assert second.share == pytest.approx(first.share, abs=0.05)
    for run in (first, second):
        train_a_step(run, 2)
    for one, other in zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(first.average.shadow_params, second.average.shadow_params, strict=True):
        assert torch.equal(one, other)


def test_the_exported_pipeline_has_the_averaged_weights_and_loads(tmp_path, tokenizer):
    run = new_run(tmp_path, tokenizer)
    trained = run.unet.conv_out.bias.detach().clone()
    for shadow in run.average.shadow_params:
        shadow.add_(1)
    run.export()
    assert torch.equal(run.unet.conv_out.bias, trained)  # training goes on from its own weights
    loaded = EmerDiffPipeline.from_pretrained(tmp_path / "pipeline", dtype=torch.float32)
    assert torch.allclose(loaded.unet.conv_out.bias, trained + 1, atol=1e-3)


@pytest.mark.parametrize(("layout", "noisy"), [(True, 0.75), (False, 0.5)])
def test_timesteps_are_all_or_half_of_them_those_of_layout(layout, noisy):
    torch.manual_seed(0)
    t = draw_timesteps(4000, torch.device("cpu"), layout=layout)
    assert t.min() >= 0 and t.max() <= 999
    assert (t >= 500).float().mean() == pytest.approx(noisy, abs=0.03)


def test_captions_are_dropped_for_the_empty_prompt_and_the_others_stay_in_place(tmp_path, tokenizer):
    run = new_run(tmp_path, tokenizer)
    captions = [f"{colour} water" for colour in ("red", "blue", "green", "black", "white")] * 8
    with torch.no_grad():
        text = run.text(run.tokens(captions))
        told, empty = (run.text_encoder(run.tokens(of)).last_hidden_state for of in (captions, [""]))
    same, blank = ((text - other).abs().amax((1, 2)) < 1e-4 for other in (told, empty))
    assert torch.equal(same, ~blank) and 3 < blank.sum() < 25


def test_the_learning_rate_warms_up_then_falls():
    rates = [annealed(share, 0.17, 1) for share in (0.17, 0.19, 0.5, 0.8, 1.0, 1.5)]
    assert rates[0] < 0.05 < rates[3] < rates[2] < rates[1] <= 1
    assert rates[4] == rates[5] == pytest.approx(0.01)
