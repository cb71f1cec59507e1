"""Checkpoints of other families: they load, and give the published procedure's segments; others are refused by kind."""

import copy
import inspect
import json
import shutil
from contextlib import contextmanager

import diffusers
import numpy as np
import pytest
import torch
from conftest import edit_json, quick, save_as_stable_diffusion, small_parts, value_of
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    ControlNetModel,
    LatentConsistencyModelPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from families import ORACLES, library_pipeline, parts_of, save_configurations, single_file, without_weights
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

import emerdiff
from emerdiff import EmerDiffPipeline, autoencoder, loading
from emerdiff.__main__ import main
from emerdiff.inspecting import family as describe_family
from emerdiff.inspecting import inspect as inspected
from emerdiff.inversion import sampling_steps, step_at
from emerdiff.layers import find_layers, native_latent_side
from emerdiff.loading import CHECKPOINTS, cast, small_autoencoder
from emerdiff.masks import magnification
from emerdiff.miniature.sample import paint
from emerdiff.settings import PRESETS
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


@pytest.mark.parametrize("modulation", [(0, 1), (2, 0)], ids=["in an earlier transformer", "early in the last"])
def test_segments_are_those_of_the_published_procedure_with_other_layers_of_a_deep_block(picture, modulation):
    deep, (transformer, depth) = EmerDiffPipeline(**parts_of("SDXL")), modulation
    layers = {"feature_layer": "up_blocks.0.attentions.1.transformer_blocks.2.attn2"}
    layers["modulation_layer"] = f"up_blocks.0.attentions.{transformer}.transformer_blocks.{depth}.attn2"
    square = picture.crop((0, 0, 128, 128))
    ours = deep(square, quick(num_segments=2, feature_layer=5, modulation_layer=3 * transformer + depth))
    published = Published(deep, square, SIZES["square"], **LIKE_QUICK | {"num_segments": 2} | layers)
    assert (ours.labels == published.run()).mean() >= 0.995
    np.testing.assert_allclose(ours.differences, published.differences, rtol=2e-3, atol=2e-3)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stable_diffusion_xl_in_half_precision_is_finite_and_close_to_the_full(picture, dtype):
    pipe = EmerDiffPipeline(**parts_of("SDXL"))
    full = pipe(picture, quick(num_segments=2))
    cast(pipe, dtype)
    assert pipe.text_encoder_2.dtype == dtype and pipe.vae.dtype == torch.float32
    half = pipe(picture, quick(num_segments=2), coarse_labels=full.coarse_labels)
    assert np.isfinite(half.differences).all()
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


# --- Files as they are found


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    """A folder of a tiny Stable Diffusion XL without weights."""
    folder = tmp_path_factory.mktemp("xl")
    library_pipeline("SDXL").save_pretrained(folder)
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    return folder


def reason(model) -> str:
    with pytest.raises(ValueError) as caught:
        emerdiff.load(model, device="cpu")
    text, start = str(caught.value), f"cannot load {str(model)!r}: "
    assert text.startswith(start) and "The miniature that comes with this package always loads" in text
    return text.removeprefix(start)


def test_parts_that_are_not_used_and_half_precision_shards_load_without_a_word(tmp_path, recwarn, messages):
    parts = parts_of("SSD-1B")
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    extra = {"image_encoder": CLIPVisionModelWithProjection(vision), "feature_extractor": CLIPImageProcessor()}
    library = StableDiffusionXLPipeline(**parts, **extra, add_watermarker=False)
    library.save_pretrained(tmp_path, variant="fp16", max_shard_size="300KB")
    (tmp_path / "safety_checker").mkdir()
    edit_json(tmp_path / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    assert len(list(tmp_path.glob("unet/*-of-*.safetensors"))) > 2
    recwarn.clear()
    messages.clear()
    pipe = emerdiff.load(tmp_path, device="cpu", dtype=torch.float32)
    assert not recwarn.list and not messages
    assert pipe.image_encoder is None
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        own, theirs = getattr(pipe, name).state_dict(), parts[name].state_dict()
        assert own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)


def test_a_pipeline_of_stable_diffusion_xl_that_is_saved_loads_again(xl, tmp_path):
    before = EmerDiffPipeline(**parts_of("SDXL"), force_zeros_for_empty_prompt=False)
    before.save_pretrained(tmp_path)
    for pipe in (emerdiff.load(tmp_path, device="cpu"), EmerDiffPipeline.from_pretrained(tmp_path)):
        assert pipe.config.force_zeros_for_empty_prompt is False
        told = pipe._encode_prompt((64, 64))
        assert told.tokens.abs().sum() > 0 and told.pooled.abs().sum() > 0 and told.sizes.shape == (1, 6)


def test_a_loaded_models_parts_paint_in_the_librarys_own_pipelines(checkpoint):
    (painted,) = paint(str(checkpoint), ("a red house",), guidance=5.0, steps=2, seed=0)
    assert painted.size == (128, 128) and np.asarray(painted).std() > 1


def test_a_single_file_loads_with_the_configuration_of_the_checkpoint_it_resembles(tmp_path, monkeypatch, messages):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    parts, file = small_parts(), tmp_path / "mix v3.safetensors"
    save_file(single_file(parts), file)
    name, revision = next(iter(CHECKPOINTS.items()))
    expected = f"it is a single file, which needs the configuration of {name}; that is not on this machine"
    assert reason(file).startswith(expected) and f"`hf download {name} --revision {revision} " in reason(file)

    cached = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / revision
    save_as_stable_diffusion(cached, parts)
    for weights in cached.glob("*/*.safetensors"):
        weights.unlink()
    messages.clear()
    pipe = emerdiff.load(file, device="cpu", dtype=torch.float32)
    assert not messages
    for part in ("unet", "vae", "text_encoder"):
        own, theirs = getattr(pipe, part).state_dict(), parts[part].state_dict()
        assert own.keys() == theirs.keys() and all(torch.equal(own[key], theirs[key]) for key in own)
    assert emerdiff.load(file, device="cpu", dtype=torch.float16).vae.dtype == torch.float32

    save_file(single_file(small_parts(layers_per_block=1)), file)
    assert "cannot be read as a checkpoint like that of its configuration" in reason(file)


UNET = "model.diffusion_model.input_blocks.0.0.weight"
VAE, TEXT = "first_stage_model.decoder.conv_in.weight", "cond_stage_model.transformer.text_model.final_layer_norm.bias"
XL_TEXT = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias"
FILES = {  # weights of a single file, by name, with their shapes, and what is said of them
    "inpainting": ({UNET: (8, 9, 3, 3)}, "because it is also given a picture with a hole to be filled"),
    "editing": ({UNET: (8, 8, 3, 3)}, "because it is also given a picture to be edited: use the text-to-image"),
    "Stable Diffusion XL": (
        {UNET: (8, 4, 3, 3), VAE: (1,), XL_TEXT: (1,)},
        "it is a single file, which needs the configuration of stabilityai/stable-diffusion-xl-base-1.0;",
    ),
    "refiner": (
        {UNET: (8, 4, 3, 3), "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (1,)},
        "it is a refiner, which only finishes another model's pictures: use the base model",
    ),
    "without a VAE": ({UNET: (8, 4, 3, 3), TEXT: (1,)}, "it has no autoencoder: use the version of this checkpoint"),
    "without text": ({UNET: (8, 4, 3, 3), VAE: (1,)}, "it has no text encoder: use the version of this checkpoint"),
    "LoRA": ({"lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": (1,)}, "it is a LoRA, which only changes"),
    "ControlNet": ({"control_model.zero_convs.0.0.weight": (1,)}, "it is a ControlNet, which only steers another"),
    "FLUX": ({"double_blocks.0.img_attn.proj.weight": (1,)}, "it is a transformer, such as those of Stable Diffusion"),
    "Stable Diffusion 3": ({"model.diffusion_model.joint_blocks.0.x": (1,)}, "it is a transformer, such as those"),
    "VAE": ({VAE: (1,)}, "it holds no U-Net in the layout of a single-file checkpoint; EmerDiff needs a U-Net"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_single_file_is_refused_by_its_kind_before_weights_are_read(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    shapes, expected = FILES[kind]
    save_file({name: torch.full(shape, torch.nan) for name, shape in shapes.items()}, tmp_path / "a.safetensors")
    assert expected in reason(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("a.ckpt", b"PK", "it has pickled weights, which could start any program and are not loaded"),
        ("a.gguf", b"GGUF", "it is a file, but not in safetensors format"),
        ("a.safetensors", b"weights", "its weights are damaged: a.safetensors ("),
        ("a.safetensors", b"", " is empty"),
    ],
)
def test_a_file_that_is_no_checkpoint_says_so(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content)
    assert expected in reason(tmp_path / name)


def index_of(pipeline: type) -> dict:
    """A model_index.json that lists the parts which a pipeline of the library needs."""
    needed = [p.name for p in inspect.signature(pipeline).parameters.values() if p.default is p.empty]
    return {"_class_name": pipeline.__name__} | {name: ["diffusers", "TheirClass"] for name in needed}


@pytest.mark.parametrize(
    "pipeline, expected",
    [
        (
            "PixArtAlphaPipeline",
            "it is a PixArtAlphaPipeline, which denoises with a transformer; EmerDiff needs a U-Net",
        ),
        ("StableDiffusion3Pipeline", "it is a StableDiffusion3Pipeline, which denoises with a transformer;"),
        ("FluxPipeline", "it is a FluxPipeline, which denoises with a transformer;"),
        ("KandinskyPipeline", "whose U-Net reads the embedding of a picture, not a prompt; EmerDiff needs"),
        ("KandinskyV22Pipeline", "whose U-Net reads the embedding of a picture, not a prompt; EmerDiff needs"),
        ("KandinskyV22CombinedPipeline", "whose U-Net reads the embedding of a picture, not a prompt; EmerDiff needs"),
        ("IFPipeline", "it is a IFPipeline without a vae: not complete, or one that paints pixels directly; EmerDiff"),
        ("StableVideoDiffusionPipeline", "it is a StableVideoDiffusionPipeline without a text_encoder"),
        ("AnimateDiffPipeline", "its unet is a TheirClass; EmerDiff needs a UNet2DConditionModel"),
    ],
)
def test_a_pipeline_of_another_kind_is_refused_by_what_it_consists_of(tmp_path, pipeline, expected):
    index = index_of(getattr(diffusers, pipeline))
    if "text_encoder" in index:
        index |= {"text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "T5Tokenizer"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index | {"vae": ["diffusers", "AutoencoderKL"]} if "vae" in
                                                          index else index))  # fmt: skip
    assert expected in reason(tmp_path)


def test_a_refiner_is_refused(xl, tmp_path):
    folder = shutil.copytree(xl, tmp_path / "copy")
    edit_json(folder / "model_index.json", text_encoder=[None, None], tokenizer=[None, None])
    assert reason(folder).startswith("it is a refiner, which only finishes another model's pictures: use the base")


@pytest.mark.parametrize(
    "channels, expected", [(9, "a picture with a hole"), (8, "a picture to be"), (5, "a depth map")]
)
def test_a_network_that_is_also_given_a_picture_is_refused_before_weights_are_read(tmp_path, channels, expected):
    save_as_stable_diffusion(tmp_path, small_parts(in_channels=channels))
    for weights in tmp_path.glob("*/*.safetensors"):
        weights.unlink()
    text = reason(tmp_path)
    assert f"takes {channels} channels and predicts 4, because it is also given {expected}" in text


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"text_encoder_2": [None, None], "tokenizer_2": [None, None]}, "its unet is one of Stable Diffusion XL's"),
        ({"text_encoder_2": ["transformers", "CLIPTextModel"]}, "must also return a vector for the whole prompt"),
        ({"scheduler": ["diffusers", "TheirScheduler"]}, "its scheduler is a TheirScheduler"),
    ],
)
def test_parts_of_stable_diffusion_xl_that_do_not_fit_are_refused(xl, tmp_path, changes, expected):
    folder = shutil.copytree(xl, tmp_path / "copy")
    edit_json(folder / "model_index.json", **changes)
    if "text_encoder_2" in changes and changes["text_encoder_2"][0] is None:
        edit_json(folder / "unet" / "config.json", cross_attention_dim=32)
    assert expected in reason(folder)


def test_conditioning_of_another_width_is_refused(xl, tmp_path):
    folder = shutil.copytree(xl, tmp_path / "copy")
    edit_json(folder / "unet" / "config.json", projection_class_embeddings_input_dim=24 + 5 * 8)
    assert "expects 64 channels for the whole prompt and the picture's size, not 24 and 6 times 8" in reason(folder)


def test_a_network_alone_is_refused_with_what_to_do(tmp_path, small):
    networks = {
        "it is a ControlNet, which only steers another checkpoint": ControlNetModel.from_unet(small.unet),
        "it is a U-Net alone: put it into the checkpoint": small.unet,
        "it is an autoencoder alone": small.vae,
    }
    for i, (expected, network) in enumerate(networks.items()):
        network.save_pretrained(tmp_path / str(i))
        assert reason(tmp_path / str(i)).startswith(expected)


def test_a_folder_with_a_lora_alone_is_refused_with_what_to_do(tmp_path):
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers={"mid_block.lora_A.weight": torch.ones(1)})
    assert reason(tmp_path).startswith("it is a LoRA, which only changes another checkpoint: fuse it into that one")


def test_a_folder_around_a_single_file_names_it(tmp_path):
    save_file({UNET: torch.ones(1)}, tmp_path / "floral mix.safetensors")
    assert "if floral mix.safetensors is a whole checkpoint, give the path of that file" in reason(tmp_path)
    (tmp_path / "floral mix.safetensors").rename(tmp_path / "mix.ckpt")
    assert "it has pickled weights" in reason(tmp_path)


def test_pickled_weights_of_any_part_are_refused_before_others_are_read(xl, tmp_path):
    folder = shutil.copytree(xl, tmp_path / "copy")
    parts = parts_of("SDXL")
    for name in ("unet", "vae", "text_encoder"):
        parts[name].save_pretrained(folder / name)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({key: torch.full_like(tensor, torch.nan) for key, tensor in load_file(weights).items()}, weights)
    (folder / "text_encoder_2" / "pytorch_model.bin").write_bytes(b"PK")
    assert reason(folder).startswith("its text_encoder_2 has no weights in safetensors format, and pickled weights")


# --- Layers and costs, from configurations alone


LAYERS = {  # at true size: block, transformers of the block by their depth, cells of the grid at the native size
    "SD 1.5": (1, (1, 1, 1), 16),
    "SD 2.1": (1, (1, 1, 1), 24),
    "BK-SDM-Tiny": (0, (1, 1), 16),
    "SDXL": (0, (10, 10, 10), 32),
    "SSD-1B": (0, (4, 4, 10), 32),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_address_every_cross_attention_of_the_low_resolution_block(name):
    block, depths, grid = LAYERS[name]
    unet = without_weights(name)["unet"]
    layers = find_layers(unet)
    assert layers.block == tuple(
        f"up_blocks.{block}.attentions.{i}.transformer_blocks.{j}.attn2"
        for i, depth in enumerate(depths)
        for j in range(depth)
    )
    assert layers.modulated == sum(depths) - 1 and layers.modulated_at(None) == layers
    assert layers.differing[0] == f"up_blocks.{block}.attentions.{len(depths) - 1}"
    assert layers.modulated_at(layers.modulated) == layers
    earlier = layers.modulated_at(0)
    assert earlier.modulation == layers.block[0] and earlier.differing == ()
    in_last = layers.modulated_at(sum(depths[:-1]))  # the first of the last transformer
    assert in_last.modulation.endswith("transformer_blocks.0.attn2") and in_last.differing == layers.differing
    assert native_latent_side(unet) // layers.stride == grid


def test_the_command_inspect_tells_what_a_checkpoint_is_and_needs(tmp_path, capsys):
    save_configurations(tmp_path / "SDXL", "SDXL")
    assert main(["inspect", str(tmp_path / "SDXL"), "--dtype", "float16"]) == 0
    out = capsys.readouterr().out
    for line in (
        "family       Stable Diffusion XL, predicts noise\n",
        "native size  1024 x 1024 pixels, a grid of 32 x 32 cells\n",
        "features     feature_layer 0 of 0 to 29: up_blocks.0.attentions.0.transformer_blocks.0.attn2\n",
        "modulation   modulation_layer 29 of 0 to 29: up_blocks.0.attentions.2.transformer_blocks.9.attn2\n",
        "autoencoder  madebyollin/taesdxl is a small one for these latents\n",
        "\nexact       1024  32 x 32    615 ",
        "\npreview      512  16 x 16     63 ",
    ):
        assert line in out
    edit_json(tmp_path / "SDXL" / "unet" / "config.json", in_channels=9)
    assert main(["inspect", str(tmp_path / "SDXL")]) == 1
    assert "because it is also given a picture with a hole to be filled" in capsys.readouterr().err


def test_an_inspection_counts_what_a_run_then_takes(checkpoint, small, picture):
    inspection = inspected(loading.without_weights(checkpoint), torch.float32)
    assert inspection.weights == sum(
        weight.nbytes for part in (small.unet, small.vae, small.text_encoder) for weight in part.parameters()
    )
    run = next(run for run in inspection.runs if run.preset == "preview" and run.side == small.native_side)
    settings = small.settings(preset="preview", kmeans_n_init=1)
    reading = value_of(small.read(picture.crop((0, 0, 128, 128)), settings))
    assert (run.rows, run.recorded) == (3 + 20 * 3, reading.nbytes) and run.grid == reading.grid[0]
    assert [(run.preset, run.side) for run in inspection.runs] == [
        (preset, side) for side in (128, 512) for preset in PRESETS
    ]


FAMILIES = {
    "SD-Turbo": "like Stable Diffusion, of another width, predicts noise",
    "LCM": "like Stable Diffusion, of another width, told a guidance scale, as consistency models are, predicts noise",
    "SSD-1B": "Stable Diffusion XL, distilled to 17 of 70 transformer blocks, predicts noise",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_family_is_told_from_structure(name):
    assert describe_family(EmerDiffPipeline(**parts_of(name))) == FAMILIES[name]


def test_the_family_of_checkpoints_at_true_size_is_told_from_structure():
    described = {name: describe_family(EmerDiffPipeline(**without_weights(name))) for name in ("SD 2.1", "BK-SDM-Tiny")}
    assert described["SD 2.1"] == "Stable Diffusion 2.x, predicts velocity"
    assert described["BK-SDM-Tiny"] == "Stable Diffusion 1.x, distilled to 9 of 16 transformer blocks, predicts noise"


# --- Small autoencoders


SMALL = {"SD 1.5": "madebyollin/taesd", "SD 2.1": "madebyollin/taesd", "SDXL": "madebyollin/taesdxl"}


@pytest.mark.parametrize("name", SMALL)
def test_the_small_autoencoder_is_that_of_the_latents(name):
    pipe = EmerDiffPipeline(**without_weights(name))
    assert small_autoencoder(pipe) == SMALL[name]
    pipe.register_modules(vae=AutoencoderTiny())
    assert small_autoencoder(pipe) is None


def test_the_small_autoencoder_is_taken_on_a_cpu_if_it_can_be_had(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    torch.manual_seed(0)
    levels = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(8,) * 4, latent_channels=4, norm_num_groups=8, **levels)
    folder = save_as_stable_diffusion(tmp_path / "model", small_parts() | {"vae": vae})
    recwarn.clear()
    assert isinstance(emerdiff.load(folder, device="cpu", autoencoder="automatic").vae, AutoencoderKL)
    assert not recwarn.list  # it was not asked for by name

    cached = tmp_path / "hub" / "models--madebyollin--taesd" / "snapshots" / ("0123456789" * 4)
    AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4).save_pretrained(cached)
    (cached.parents[1] / "refs").mkdir()
    (cached.parents[1] / "refs" / "main").write_text(cached.name)
    assert isinstance(emerdiff.load(folder, device="cpu", autoencoder="automatic").vae, AutoencoderTiny)
    assert isinstance(emerdiff.load(folder, device="cpu").vae, AutoencoderKL)  # a choice of the page, not the default
