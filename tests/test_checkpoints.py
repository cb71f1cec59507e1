"""Checkpoints of other families: they load, and give the published procedure's segments; others are refused by kind."""

import copy
import inspect
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import quick
from diffusers import LatentConsistencyModelPipeline
from families import ORACLES, library_pipeline

import emerdiff
from emerdiff import EmerDiffPipeline, autoencoder
from emerdiff.inversion import sampling_steps, step_at
from emerdiff.loading import cast
from emerdiff.masks import magnification
from emerdiff.studies.published import Published

SIZES = {"wide": (128, 64), "square": (64, 64)}
LIKE_QUICK = {"num_segments": 3, "n_init": 1, "steps": 10, "t_m": 301}  # `quick()` in the oracle's words


@contextmanager
def hooked(network, hook):
    handle = network.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def guidance(library) -> torch.Tensor:
    """The library's embedding of the scale that its consistency models have by default."""
    scale = inspect.signature(LatentConsistencyModelPipeline.__call__).parameters["guidance_scale"].default
    width = library.unet.config.time_cond_proj_dim
    return library.get_guidance_scale_embedding(torch.tensor([scale - 1]), embedding_dim=width)[0]


@pytest.fixture(scope="module", params=ORACLES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def library(family):
    """The library's own pipeline."""
    return library_pipeline(family)


@pytest.fixture(scope="module")
def pipe(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    library.save_pretrained(folder)
    return emerdiff.load(folder, device="cpu", dtype=torch.float32)


def test_segments_are_those_of_the_published_procedure(family, pipe, picture):
    oracle = ORACLES[family].copy()
    block, own = oracle.pop("block"), {}
    for name in ("feature", "modulation"):
        transformer, depth = oracle.pop(name)
        own[f"{name}_layer"] = f"up_blocks.{block}.attentions.{transformer}.transformer_blocks.{depth}.attn2"
    for shape, size in SIZES.items():
        seen = picture if shape == "wide" else picture.crop((0, 0, 128, 128))
        ours = pipe(seen, quick(num_segments=3))
        published = Published(pipe, seen, size, **LIKE_QUICK | own | oracle)
        published.run()
        assert ours.settings.modulation_timestep == published.t_m
        np.testing.assert_array_equal(ours.coarse_labels.ravel(), published.coarse)
        np.testing.assert_allclose(ours.differences, published.differences, rtol=2e-3, atol=2e-3)
        assert (ours.labels == published.labels).mean() >= 0.995
        assert ours.differences.max() > 0.01 and ours.changed > 0.05


def test_the_network_is_told_what_the_librarys_pipeline_tells_it(family, library, pipe):
    told, height, width = [], 64, 128
    with hooked(library.unet, lambda _unet, _args, kwargs: told.append(kwargs)):
        library("", height=height, width=width, num_inference_steps=1, output_type="latent")
    theirs, ours = told[0], pipe._encode_prompt((width, height)).for_rows(1)
    assert {name for name, value in theirs.items() if value is not None and name in ours} == ours.keys()
    if family != "LCM-SDXL":  # which the library never runs without a prompt
        assert torch.equal(ours["encoder_hidden_states"], theirs["encoder_hidden_states"][:1])  # of a pair, no prompt
    if pooled := ours.get("added_cond_kwargs"):
        assert torch.equal(pooled["time_ids"], theirs["added_cond_kwargs"]["time_ids"][:1].float())
        if family != "LCM-SDXL":
            assert torch.equal(pooled["text_embeds"], theirs["added_cond_kwargs"]["text_embeds"][:1])
    if "timestep_cond" in ours:
        assert "LCM" in family
        torch.testing.assert_close(ours["timestep_cond"][0], guidance(library), rtol=0, atol=1e-3)


def test_the_schedule_is_that_of_the_checkpoints_own_scheduler(family, library, pipe):
    steps, alphas = sampling_steps(pipe.scheduler, 10), library.scheduler.alphas_cumprod
    assert [step.alpha_bar for step in steps] == [alphas[step.t].item() for step in steps]
    assert step_at(pipe.scheduler, 1).alpha_bar == alphas[1].item()
    if "Euler" in type(library.scheduler).__name__:  # the others take steps of their own
        library.scheduler.set_timesteps(10)
        assert [step.t for step in steps] == library.scheduler.timesteps.tolist()


# --- Half precision


def copied(pipe):
    return EmerDiffPipeline(**{name: copy.deepcopy(part) for name, part in pipe.components.items() if part is not None})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
def test_logits_that_float16_cannot_hold_give_finite_differences_close_to_the_full(small_v2, picture, dtype, shared):
    """As in Stable Diffusion 2.1 at 768 pixels."""
    pipe = copied(small_v2)
    pipe.share_attention = shared
    attention = [pipe.unet.get_submodule(name) for name in (*pipe.layers.self_attention, *pipe.layers.cross_attention)]
    with torch.no_grad():
        for layer in attention:
            layer.to_q.weight *= 1000  # the queries can be held, but not the logits
            layer.to_k.weight *= 1000
    names = [f"{name}.{of}" for name in pipe.layers.self_attention for of in ("to_q", "to_k")]
    outputs = list(pipe.outputs(picture, names, 1, quick()).values())
    queries, keys = (x.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
                     for x, layer in zip(outputs[:2], attention[:1] * 2, strict=True))  # fmt: skip
    assert max(x.abs().max() for x in outputs) < 65504 < (queries @ keys.mT * attention[0].scale).max()
    full = pipe(picture, quick(num_segments=2))
    cast(pipe, dtype)
    half = pipe(picture, quick(num_segments=2), coarse_labels=full.coarse_labels)
    assert np.isfinite(half.differences).all() and np.isfinite(half.features).all()
    assert half.differences.mean() == pytest.approx(full.differences.mean(), rel=0.25)


@pytest.fixture
def overflowing(small):
    """A pipeline in float16 whose decoder, as Stable Diffusion XL's, has activations that float16 cannot hold."""
    pipe = copied(small)
    with torch.no_grad():
        pipe.vae.decoder.mid_block.resnets[0].conv2.weight *= 1e6
    cast(pipe, torch.float16)
    return pipe


@pytest.mark.parametrize("two_sided", [True, False])
def test_a_decoder_that_overflows_float16_is_run_in_float32(overflowing, picture, two_sided):
    latents = overflowing._encode(picture.resize((64, 64)))
    assert not overflowing._decode(latents, torch.float16).isfinite().all()
    full, half = (
        overflowing(picture, quick(num_segments=2, two_sided=two_sided, magnified_decoding=magnified))
        for magnified in (False, True)
    )
    assert np.isfinite(half.differences).all() and half.differences.max() > 0
    np.testing.assert_array_equal(half.differences, full.differences)


def test_a_decoder_that_overflows_float16_only_for_what_is_magnified_is_run_in_float32_there(overflowing, picture):
    x_0 = overflowing._encode(picture.resize((64, 64)))
    latents = x_0 + 0.01 * torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    reference = autoencoder.decode(overflowing.vae, x_0)
    pictures = autoencoder.decode_magnified(overflowing.vae, latents, torch.float16, x_0=x_0, reference=reference)
    factor = magnification(latents - x_0)
    expected = reference + (autoencoder.decode(overflowing.vae, x_0 + factor * (latents - x_0)) - reference) / factor
    assert torch.equal(pictures, expected)
