import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from conftest import edit_json, quick, save_as_stable_diffusion, small_parts
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDPMPipeline,
    DDPMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    SchedulerMixin,
    UNet2DModel,
    VQModel,
)
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.utils import logging as transformers_logging

import emerdiff
from emerdiff import EmerDiffPipeline, Settings
from emerdiff.inversion import sampling_steps, step_at
from emerdiff.quiet import quiet

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n"
SCHEDULERS = {"small": "PNDMScheduler", "small_v2": "DDIMScheduler"}


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint's folder, to be spoiled."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


@pytest.fixture
def untried(monkeypatch):
    """Without the trial run before weights are read, which takes longer than reading these: others are for that."""
    monkeypatch.setattr("emerdiff.loading._try_out", lambda folder: None)


def tokens(pipe) -> torch.Tensor:
    """The empty prompt, encoded."""
    return pipe._encode_prompt((64, 64)).tokens


def edit_weights(path, edit):
    """`edit` takes and returns the tensors by their names."""
    save_file(edit(load_file(path)), path, {"format": "pt"})


def reason(model, **kwargs) -> str:
    """What the error says, less what every one of them says."""
    with pytest.raises(ValueError) as caught:
        emerdiff.load(model, **{"device": "cpu"} | kwargs)
    text, start, end = str(caught.value), f"cannot load {str(model)!r}: ", ". The miniature that comes with"
    assert text.startswith(start) and end in text and "'miniature'" in text
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" in text
    return text.removeprefix(start).split(end)[0]


def assert_same(a, b):
    np.testing.assert_array_equal(a.coarse_labels, b.coarse_labels)
    np.testing.assert_array_equal(a.differences, b.differences)


# --- What loads


@pytest.mark.parametrize("name", ["small", "small_v2"])
def test_a_folder_that_stable_diffusions_pipeline_saved_loads(request, name, picture):
    pipe = request.getfixturevalue(name)
    assert type(pipe) is EmerDiffPipeline and type(pipe.scheduler).__name__ == SCHEDULERS[name]
    assert pipe.device.type == "cpu" and pipe.dtype == torch.float32
    assert pipe.settings() == Settings()
    result = pipe(picture, quick(num_segments=2))
    assert np.isfinite(result.differences).all() and result.differences.max() > 0.01
    assert result.model == pipe.config["_name_or_path"] != "unnamed"


def test_a_folder_may_be_named_by_a_string(checkpoint):
    assert emerdiff.load(str(checkpoint), device="cpu").config["_name_or_path"] == str(checkpoint)


def test_a_pipeline_that_is_saved_and_loaded_keeps_its_defaults_and_gives_the_same_result(picture, tmp_path):
    defaults = {"num_segments": 3, "strength": 4.0, "kmeans_n_init": 2, "keep_aspect": False}
    before = EmerDiffPipeline(**small_parts(), defaults=defaults)
    before.save_pretrained(tmp_path)
    expected = before(picture, before.settings(num_inference_steps=10, modulation_timestep=301, image_area=64 * 64))
    for pipe in (
        emerdiff.load(tmp_path, device="cpu", dtype=torch.float32),
        EmerDiffPipeline.from_pretrained(tmp_path),
    ):
        assert pipe.settings() == Settings(**defaults)
        result = pipe(picture, pipe.settings(num_inference_steps=10, modulation_timestep=301, image_area=64 * 64))
        assert result.settings == expected.settings and result.settings.num_segments == 3
        for part in ("unet", "vae", "text_encoder"):
            pairs = zip(getattr(pipe, part).parameters(), getattr(before, part).parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
        np.testing.assert_array_equal(result.coarse_labels, expected.coarse_labels)
        np.testing.assert_allclose(result.differences, expected.differences, rtol=0, atol=1e-4)


def test_a_pipeline_made_of_a_checkpoints_parts_gives_the_loaded_ones_result(small, picture):
    parts = {name: small.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    pipe = EmerDiffPipeline(**parts)
    settings = quick(num_segments=2)
    assert_same(pipe(picture, settings), small(picture, settings))
    assert pipe(picture, settings).model == "unnamed"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loads_and_gives_finite_results_close_to_the_full(checkpoint, small, picture, dtype):
    pipe = emerdiff.load(checkpoint, device="cpu", dtype=dtype)
    assert {pipe.unet.dtype, pipe.text_encoder.dtype} == {dtype}
    assert pipe.vae.dtype == torch.float32  # half precision cannot tell apart what the method compares
    half, full = pipe(picture, quick()), small(picture, quick())
    assert half.differences.dtype == np.float32 and np.isfinite(half.differences).all()
    np.testing.assert_array_equal(half.coarse_labels.shape, full.coarse_labels.shape)
    assert half.differences.mean() == pytest.approx(full.differences.mean(), rel=0.2)


def save_tiny_autoencoder(folder, *, levels=3):
    torch.manual_seed(0)
    widths, blocks = (16,) * levels, (1,) * levels
    AutoencoderTiny(
        encoder_block_out_channels=widths, decoder_block_out_channels=widths,
        num_encoder_blocks=blocks, num_decoder_blocks=blocks,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_a_tiny_autoencoder_may_take_the_place_of_the_vae(small, picture, tmp_path):
    tiny = AutoencoderTiny.from_pretrained(save_tiny_autoencoder(tmp_path))
    parts = {name: small.components[name] for name in ("text_encoder", "tokenizer", "unet", "scheduler")}
    pipe = EmerDiffPipeline(vae=tiny, **parts)
    assert pipe.vae_scale_factor == 4 and pipe.native_side == small.native_side
    result = pipe(picture, quick())
    assert result.labels.shape == (64, 128) and result.coarse_labels.shape == (8, 16)
    assert np.isfinite(result.differences).all() and result.differences.max() > 0
    assert_same(pipe(picture, quick()), result)


def test_a_checkpoint_loads_with_a_tiny_autoencoder_in_place_of_its_own(checkpoint, small, picture, tmp_path):
    pipe = emerdiff.load(checkpoint, device="cpu", autoencoder=save_tiny_autoencoder(tmp_path))
    assert isinstance(pipe.vae, AutoencoderTiny) and pipe.vae.dtype == torch.float32
    result = pipe(picture, quick())
    assert np.isfinite(result.differences).all() and result.differences.max() > 0


@pytest.mark.parametrize(
    "autoencoder, reason",
    [("nobody/has-this", "the Hub cannot be reached"), (None, "its latents have another shape")],
    ids=["not there", "another shape"],
)
def test_an_autoencoder_that_cannot_be_used_leaves_the_models_own_and_says_why(
    checkpoint, small, picture, tmp_path, autoencoder, reason
):
    autoencoder = autoencoder or save_tiny_autoencoder(tmp_path, levels=4)
    with pytest.warns(UserWarning, match=f"cannot replace the model's own autoencoder: .*{reason}"):
        pipe = emerdiff.load(checkpoint, device="cpu", dtype=torch.float32, autoencoder=autoencoder)
    assert_same(pipe(picture, quick()), small(picture, quick()))


def test_unused_parts_of_a_checkpoint_need_not_be_there(copy):
    unused = ["stable_diffusion", "StableDiffusionSafetyChecker"], ["transformers", "CLIPImageProcessor"]
    edit_json(copy / "model_index.json", safety_checker=unused[0], feature_extractor=unused[1])
    pipe = emerdiff.load(copy, device="cpu")
    assert pipe.safety_checker is None and pipe.feature_extractor is None


# --- What does not, and why


def test_a_hub_id_that_is_not_on_this_machine_says_so_when_the_hub_cannot_be_reached():
    expected = "it is not on this machine, and the Hub cannot be reached (there is no network, or offline mode is on)"
    assert reason("nobody/nothing") == expected


@pytest.mark.parametrize("name", ["nowhere", "two words/and more/still"])
def test_a_folder_that_does_not_exist_says_so(tmp_path, name):
    assert reason(tmp_path / name).startswith("there is no such folder")
    assert reason(str(tmp_path / name)).startswith("there is no such folder")


def test_a_folder_without_model_index_says_so(tmp_path):
    assert reason(tmp_path).startswith("it has no model_index.json")


def test_a_model_index_that_is_not_json_says_so(copy):
    (copy / "model_index.json").write_text('{"unet": ')
    assert reason(copy).startswith("its model_index.json is not a valid JSON file (")


def test_a_model_index_that_is_a_list_says_so(copy):
    (copy / "model_index.json").write_text("[]")
    with pytest.raises(ValueError, match="model_index.json does not contain a JSON object"):
        emerdiff.load(copy, device="cpu")


def test_a_model_that_predicts_the_sample_is_refused_when_it_is_loaded(copy):
    edit_json(copy / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(ValueError, match="cannot load .*models that predict 'sample' are not supported"):
        emerdiff.load(copy, device="cpu")


@pytest.mark.parametrize("part", ["unet", "tokenizer", "text_encoder", "vae", "scheduler"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    assert reason(copy) == f"its folder {part} is missing"
    edit_json(copy / "model_index.json", **{part: [None, None]})
    assert reason(copy).startswith(f"it is a StableDiffusionPipeline without a {part}")
    edit_json(copy / "model_index.json", **{part: ...})
    assert reason(copy).startswith(f"it is a StableDiffusionPipeline without a {part}")


def test_pickled_weights_are_not_loaded_and_that_is_said(tmp_path):
    save_as_stable_diffusion(tmp_path, small_parts(), safe_serialization=False)
    assert list(tmp_path.glob("unet/*.bin"))
    assert reason(tmp_path).startswith("its unet has no weights in safetensors format, and pickled")


def test_weights_that_break_off_are_called_damaged(copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert reason(copy).startswith("its weights are damaged: ")


def test_a_pipeline_of_another_kind_says_what_it_lacks(tmp_path):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 32), **blocks)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    assert reason(tmp_path).startswith("it is a DDPMPipeline without a vae: not complete, or one that paints pixels")


def test_a_denoiser_of_another_class_is_named_before_its_weights_are_read(copy):
    edit_json(copy / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"])
    for weights in copy.glob("*/*.safetensors"):
        weights.unlink()
    assert reason(copy) == "its unet is a FluxTransformer2DModel; EmerDiff needs a UNet2DConditionModel"


@pytest.mark.parametrize(
    "defaults, expected",
    [
        ({"num_segments": 1}, "num_segments must be a whole number from 2 to 256, not 1"),
        ({"keep_aspect": "yes"}, "keep_aspect must be True or False, not 'yes'"),
        ({"colour": 3}, "'colour'"),
        ([3], "list"),
    ],
)
def test_wrong_default_settings_are_refused_when_the_model_is_loaded(copy, defaults, expected):
    edit_json(copy / "model_index.json", defaults=defaults)
    text = reason(copy)
    assert text.startswith("the model's default settings are wrong: ") and expected in text


@pytest.mark.parametrize("device", ["nonsense", "meta:x", "cuda:99"])
def test_a_device_that_cannot_be_used_is_refused_by_name(checkpoint, device):
    with pytest.raises(ValueError, match=f"the device '{device}' cannot be used here: "):
        emerdiff.load(checkpoint, device=device)


# --- Noise schedules


def schedulers() -> list[type]:
    """Those of diffusers; without three that need arguments and have no alphas, and those of packages not here."""
    modules = diffusers.schedulers, diffusers.schedulers.deprecated
    kinds = {getattr(module, name) for module in modules for name in dir(module) if name.endswith("Scheduler")}
    made = [kind for kind in kinds if not hasattr(kind, "_backends")]
    return [kind for kind in made if not arguments(kind, lambda p: p.default is p.empty)]


def arguments(kind: type, wanted=lambda parameter: True) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {p.name for p in parameters if wanted(p) and p.kind is not p.VAR_KEYWORD}


SCHEDULES = {
    "defaults": {},
    "SD": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1},
    "no signal": {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    "trained": {"trained_betas": np.linspace(0.001, 0.01, 400).tolist(), "num_train_timesteps": 400},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_scheduler_gives_its_own_alphas_or_is_refused_in_memory_and_from_its_file(tmp_path, name):
    fitting = set()
    for kind in schedulers():
        given = {key: value for key, value in SCHEDULES[name].items() if key in arguments(kind)}
        try:
            scheduler = kind(**given)
        except (TypeError, ValueError):  # UnCLIP's knows one schedule alone, RePaint's no list of betas
            continue
        try:
            steps = sampling_steps(scheduler, 20)
        except ValueError as error:
            assert "noise schedule" in str(error) or "models that predict" in str(error)
            continue
        fitting.add(kind.__name__)
        own = scheduler.alphas_cumprod.tolist()
        assert [step.alpha_bar for step in steps] == pytest.approx([own[step.t] for step in steps], rel=0, abs=1e-7)
        assert step_at(scheduler, 7).alpha_bar == own[7]
        scheduler.save_pretrained(tmp_path / kind.__name__)
        assert sampling_steps(kind.from_pretrained(tmp_path / kind.__name__), 20) == steps
    assert fitting >= {f"{kind}Scheduler" for kind in ("DDIM", "PNDM", "EulerDiscrete", "HeunDiscrete", "LCM", "TCD")}
    assert not fitting & {f"{kind}Scheduler" for kind in ("EDMEuler", "FlowMatchEulerDiscrete", "ScoreSdeVe", "IPNDM")}


@pytest.mark.parametrize(
    "scheduler, grid",
    [
        (EulerDiscreteScheduler(**SCHEDULES["SD"], timestep_spacing="trailing"), [999, 799, 599, 399, 199]),
        (LCMScheduler(), [800, 600, 400, 200, 0]),
        (HeunDiscreteScheduler(), [999, 749, 500, 250, 0]),
    ],
    ids=["as SD-Turbo's", "as LCM's", "its class's defaults"],
)
def test_schedulers_of_other_classes_keep_their_noise_schedule_and_spacing(untried, copy, scheduler, grid):
    shutil.rmtree(copy / "scheduler")
    scheduler.save_pretrained(copy / "scheduler")
    edit_json(copy / "model_index.json", scheduler=["diffusers", type(scheduler).__name__])
    pipe = emerdiff.load(copy, device="cpu")
    assert [step.t for step in sampling_steps(pipe.scheduler, 5)] == grid
    assert step_at(pipe.scheduler, 500).alpha_bar == scheduler.alphas_cumprod[500].item()


@pytest.mark.parametrize(
    "changes, expected",
    [
        # the class in the scheduler's own file counts, as DDIM's and PNDM's take any values without a word
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler, has another kind"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDMDPMSolverMultistepScheduler, has another kind"),
        ({"_class_name": "CogVideoXDDIMScheduler"}, "its scheduler, CogVideoXDDIMScheduler, differs from DDIM's"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "another kind of noise schedule"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "another kind of noise schedule"),
        ({"_class_name": "TheirScheduler"}, "its scheduler is a TheirScheduler, which diffusers "),
        ({"_class_name": "UNet2DModel"}, "its scheduler is a UNet2DModel, which diffusers "),
        ({"_class_name": "HeunDiscreteScheduler", "beta_schedule": "exp"}, "is not one of DDIM's"),
        ({"beta_schedule": "their own"}, "cannot be made from its scheduler_config.json"),
        ({"beta_schedule": ...}, "its scheduler_config.json lacks a noise schedule"),
        ({"beta_start": "0.1"}, "cannot be made from its scheduler_config.json"),
        ({"beta_start": float("nan")}, "the noise schedule of its scheduler is broken"),
        ({"beta_end": 5}, "the noise schedule of its scheduler is broken"),
        ({"trained_betas": [-0.1] * 1000}, "the noise schedule of its scheduler is broken"),
        ({"trained_betas": [0.1] * 10}, "the noise schedule of its scheduler is broken"),
        ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}, "ends without any signal"),
        ({"prediction_type": "flow_prediction"}, "models that predict 'flow_prediction' are not supported"),
        ({"num_train_timesteps": "1000"}, "num_train_timesteps must be a whole number from 1 to 100000, not '1000'"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps must be a whole number from 1 to 100000"),
        ({"num_train_timesteps": 20}, "num_inference_steps must be at most 20 for this model, not 50"),
        ({"steps_offset": -1}, "steps_offset must be a whole number from 0 to 999, not -1"),
        ({"steps_offset": "1"}, "steps_offset must be a whole number from 0 to 999, not '1'"),
        ({"set_alpha_to_one": "no"}, "set_alpha_to_one must be true or false, not 'no'"),
        ({"timestep_spacing": "even"}, "timestep_spacing must be leading, trailing or linspace, not 'even'"),
    ],
    ids=str,
)
def test_a_noise_schedule_that_ddim_does_not_have_is_refused(copy, changes, expected):
    edit_json(copy / "scheduler" / "scheduler_config.json", **changes)
    assert expected in reason(copy)


# --- Tokenizers


def old_layout(folder):
    """vocab.json and merges.txt in place of tokenizer.json, as Stable Diffusion has them."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in model["merges"]))


@pytest.mark.parametrize("length", [..., None, 512, "77"])
def test_the_longest_prompt_is_the_text_encoders_where_the_tokenizer_does_not_say(copy, small, length):
    edit_json(copy / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    tokenizer = type(small.tokenizer).from_pretrained(copy / "tokenizer")
    pipe = EmerDiffPipeline(**parts_of(small) | {"tokenizer": tokenizer})
    assert torch.equal(tokens(pipe), tokens(small))


def test_a_tokenizer_in_the_old_layout_loads(untried, copy, small):
    old_layout(copy / "tokenizer")
    pipe = emerdiff.load(copy, device="cpu", dtype=torch.float32)
    assert torch.equal(tokens(pipe), tokens(small))


VOCABULARY = "its tokenizer has {} tokens, but its text_encoder 281: vocab.json and merges.txt, or tokenizer.json"


@pytest.mark.parametrize(
    "spoil, expected",
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), VOCABULARY.format(2)),
        (lambda folder: [file.unlink() for file in folder.iterdir()], VOCABULARY.format(2)),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "its tokenizer cannot be made from its files"),
        (lambda folder: (folder / "tokenizer.json").write_text(""), "its tokenizer/tokenizer.json is empty"),
        (lambda folder: edit_json(folder / "tokenizer_config.json", bos_token="<s>"), VOCABULARY.format(282)),
        (lambda folder: edit_json(folder / "tokenizer_config.json", bos_token=None), "has no bos_token"),
        (
            lambda folder: edit_json(folder / "tokenizer_config.json", bos_token="a</w>"),
            "its tokenizer's bos_token, 'a</w>', is a piece of words",
        ),
        (lambda folder: edit_json(folder / "tokenizer_config.json", pad_token=None), "has no padding token"),
        (lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length=1), "must be from 2 tokens"),
        (lambda folder: (old_layout(folder), (folder / "merges.txt").unlink()), "cannot be made from its files"),
        (lambda folder: (old_layout(folder), (folder / "vocab.json").unlink()), "cannot be made from its files"),
        (
            lambda folder: (old_layout(folder), edit_json(folder / "vocab.json", **{"<|startoftext|>": 999})),
            "its tokenizer does not number its tokens from 0 to 280",
        ),
        (
            lambda folder: (old_layout(folder), edit_json(folder / "vocab.json", **{"<|startoftext|>": ...})),
            "its tokenizer does not number its tokens from 0 to 280",
        ),
    ],
    ids=range(13),
)
def test_a_tokenizer_that_is_not_the_text_encoders_is_refused(copy, spoil, expected):
    spoil(copy / "tokenizer")
    assert expected in reason(copy)


# --- Parts that do not belong together


def parts_of(pipe) -> dict:
    return {name: pipe.components[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}


def wide_text_encoder():
    return CLIPTextModel(CLIPTextConfig(vocab_size=281, hidden_size=64, num_hidden_layers=1, num_attention_heads=4))


@pytest.mark.parametrize(
    "other, expected",
    [
        ({"vae": AutoencoderKL(latent_channels=16)}, "its vae's latents have 16 channels, but its unet takes 4"),
        ({"vae": AutoencoderKL(in_channels=1)}, "its vae must read and write RGB, not pictures of 1 and 3 channels"),
        ({"vae": AutoencoderKL(shift_factor=0.1)}, "its vae has shift_factor"),
        ({"vae": AutoencoderKL(scaling_factor=0.0)}, "scaling_factor of its vae must be a positive number, not 0.0"),
        ({"vae": VQModel(latent_channels=4)}, "its vae is a VQModel; EmerDiff needs an AutoencoderKL"),
        ({"text_encoder": wide_text_encoder()}, "outputs have 64 channels, but its unet expects 32"),
        ({"scheduler": SchedulerMixin()}, "its scheduler, SchedulerMixin, has another kind of noise schedule"),
        ({"defaults": {"feature_layer": 9}}, "default settings are wrong: feature_layer must be from 0 to 2"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(small, other, expected):
    with pytest.raises(ValueError) as caught:
        EmerDiffPipeline(**parts_of(small) | other)
    assert expected in str(caught.value)


CONDITIONING = {
    "addition_embed_type": "text_image",
    "addition_time_embed_dim": 8,
    "attention_type": "gated",
    "class_embed_type": "timestep",
    "cross_attention_dim": [32, 32, 32],
    "dual_cross_attention": True,
    "encoder_hid_dim": 64,
    "encoder_hid_dim_type": "text_proj",
    "num_class_embeds": 10,
    "projection_class_embeddings_input_dim": 8,
}


def test_conditioning_on_more_than_a_prompt_is_refused_by_its_name_before_weights_are_read(copy):
    config = copy / "unet" / "config.json"
    before = config.read_text()
    for weights in copy.glob("*/*.safetensors"):
        weights.unlink()
    for name, value in CONDITIONING.items():
        edit_json(config, **{name: value})
        assert name in reason(copy)
        config.write_text(before)


@pytest.mark.parametrize(
    "part, changes, expected",
    [
        ("unet", {"block_out_channels": None}, "its unet cannot be made from its config.json (TypeError: "),
        ("unet", {"block_out_channels": [32, 32]}, "its unet cannot be made from its config.json ("),
        ("unet", {"down_block_types": ["TheirBlock"] * 3}, "its unet cannot be made from its config.json ("),
        ("unet", {"in_channels": "4"}, "its unet cannot be made from its config.json (TypeError: "),
        ("unet", {"norm_num_groups": 0}, "its unet cannot be made from its config.json (ZeroDivisionError: "),
        ("unet", {"freq_shift": "0"}, "its parts do not work together (TypeError: "),
        ("unet", {"center_input_sample": "yes"}, "its unet's center_input_sample must be true or false, not 'yes'"),
        ("unet", {"flip_sin_to_cos": "no"}, "its unet's flip_sin_to_cos must be true or false, not 'no'"),
        ("vae", {"force_upcast": 2}, "its vae's force_upcast must be true or false, not 2"),
        ("scheduler", {"skip_prk_steps": "x"}, "its scheduler's skip_prk_steps must be true or false, not 'x'"),
        ("unet", {"conv_in_kernel": 4}, "its parts do not work together ("),
        ("unet", {"conv_out_kernel": 4}, "its parts do not work together (its unet's prediction has shape "),
        ("unet", {"sample_size": "32"}, "must be a whole number, not '32'"),
        ("unet", {"sample_size": [32]}, "must be a whole number, not [32]"),
        ("unet", {"sample_size": 1}, "its pictures must be from 64 to 4096 pixels a side, not 4"),
        ("unet", {"sample_size": 10**9}, "its pictures must be from 64 to 4096 pixels a side"),
        ("unet", {"transformer_layers_per_block": 0}, "needs an upward block with cross-attention"),
        ("unet", {"quantization_config": {"load_in_8bit": True}}, "its unet is quantised"),
        ("vae", {"block_out_channels": [16]}, "its vae cannot be made from its config.json (IndexError: "),
        ("vae", {"block_out_channels": [16, 32, 32, 32]}, "its parts do not work together ("),
        ("vae", {"scaling_factor": None}, "the scaling_factor of its vae must be a positive number, not None"),
        ("vae", {"scaling_factor": float("nan")}, "the scaling_factor of its vae must be a positive number, not nan"),
        ("text_encoder", {"hidden_size": "32"}, "field 'hidden_size': TypeError"),
        ("text_encoder", {"hidden_act": "theirs"}, "its text_encoder cannot be made from its config.json (KeyError: "),
    ],
    ids=str,
)  # fmt: skip
def test_a_configuration_that_cannot_work_is_refused(copy, part, changes, expected):
    edit_json(copy / part / ("scheduler_config.json" if part == "scheduler" else "config.json"), **changes)
    assert expected in reason(copy)


def test_whether_the_empty_prompt_is_zeros_is_true_or_false(copy):
    edit_json(copy / "model_index.json", force_zeros_for_empty_prompt="yes")
    assert "its force_zeros_for_empty_prompt must be true or false, not 'yes'" in reason(copy)


@pytest.mark.parametrize(
    "part, entry, expected",
    [
        ("vae", ["diffusers", "TheirAutoencoder"], "its vae is a TheirAutoencoder, which diffusers "),
        ("text_encoder", ["os", "system"], "its text_encoder is a system, which transformers "),
        ("text_encoder", ["transformers", "CLIPTextModelWithProjection"], "must return a vector for each token"),
        ("scheduler", ["diffusers", 3], "its scheduler is a 3, which diffusers "),
        ("unet", "UNet2DConditionModel", "it is a StableDiffusionPipeline without a unet"),
    ],
)
def test_a_class_that_is_not_one_is_named(copy, part, entry, expected):
    edit_json(copy / "model_index.json", **{part: entry})
    assert expected in reason(copy)


# --- Files


SMALL_FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
]


@pytest.mark.parametrize(
    "content, expected",
    [
        (POINTER, "its {} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
        ("", "its {} is empty"),
        ("[1]", "its {} does not contain a JSON object"),
        ("{", "its {} is not a valid JSON file ("),
        (b"\xff\xfe{}", "its {} is not a valid JSON file ("),
        ("[" * 100_000, "its {} is not a valid JSON file ("),
        (None, "its {} is not a file"),
    ],
    ids=["pointer", "empty", "list", "cut off", "no text", "deep", "folder"],
)
def test_a_small_file_that_cannot_be_read_is_named_with_the_reason(copy, content, expected):
    for name in SMALL_FILES:
        file = copy / name
        file.rename(copy / "kept")
        if content is None:
            file.mkdir()
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert reason(copy).startswith(expected.format(name))
        file.rmdir() if content is None else file.unlink()
        (copy / "kept").rename(file)


def test_a_file_far_too_large_is_not_read(copy):
    os.truncate(copy / "unet" / "config.json", 2**31)
    assert reason(copy).startswith("its unet/config.json has 2048 MiB, far more")


@pytest.mark.parametrize(
    "content, expected",
    [
        (POINTER.encode(), "its {} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`"),
        (b"", "its {} is empty"),
        ((2**60).to_bytes(8, "little") + b"{}", "its weights are damaged: {} ("),
    ],
    ids=["pointer", "empty", "false length of the header"],
)
def test_weights_that_are_no_weights_are_named(untried, copy, content, expected):
    for name in (VAE, TEXT, UNET):  # each is read before the one that is broken already
        (copy / name).write_bytes(content)
        assert reason(copy).startswith(expected.format(name))


def without(key):
    return lambda weights: {name: tensor for name, tensor in weights.items() if name != key}


def with_(key, tensor):
    return lambda weights: weights | {key: tensor}


@pytest.mark.parametrize(
    "file, edit, expected",
    [
        (UNET, without("conv_in.weight"), "its unet lacks weights that its config.json requires: conv_in.weight"),
        (UNET, with_("conv_in.weight", torch.zeros(32, 5, 3, 3)), "its unet's conv_in.weight has shape (32, 5, 3, 3)"),
        (UNET, with_("position_net.weight", torch.zeros(3)), "no place: position_net.weight"),
        (UNET, with_("conv_in.bias", torch.ones(32, dtype=torch.int8)), "is quantised (conv_in.bias is I8)"),
        (UNET, with_("conv_in.bias", torch.full((32,), torch.nan)), "its unet's conv_in.bias is not finite in float32"),
        (VAE, lambda weights: {"nothing": torch.zeros(1)}, "its vae lacks weights that its config.json requires"),
        (TEXT, lambda weights: dict(list(weights.items())[1:]), "its text_encoder lacks weights"),
        (TEXT, with_("text_model.encoder.layers.9.mlp.fc1.bias", torch.ones(1)), "no place: "),
    ],
    ids=["lacking", "shape", "another network's", "whole numbers", "NaN", "vae", "text encoder", "more layers"],
)
def test_weights_that_are_not_the_networks_are_refused(untried, copy, file, edit, expected):
    edit_weights(copy / file, edit)
    assert expected in reason(copy, dtype=torch.float32)


def test_weights_that_overflow_half_precision_are_refused_only_there(untried, copy):
    edit_weights(copy / UNET, with_("conv_in.weight", torch.full((32, 4, 3, 3), 1e6)))
    assert "conv_in.weight is not finite in float16" in reason(copy, dtype=torch.float16)
    assert emerdiff.load(copy, device="cpu", dtype=torch.float32).unet.conv_in.weight.max() == 1e6


def test_a_text_encoder_in_a_file_with_the_rest_of_clip_loads(untried, copy, small):
    def whole(weights):
        own = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in weights.items()}
        rest = {"text_projection.weight": torch.ones(2, 2), "vision_model.post_layernorm.bias": torch.ones(2)}
        return own | rest | {"text_model.embeddings.position_ids": torch.arange(77)[None]}

    edit_weights(copy / TEXT, whole)
    pipe = emerdiff.load(copy, device="cpu", dtype=torch.float32)
    assert torch.equal(tokens(pipe), tokens(small))


# --- Variants and shards


def as_variant(folder, variant):
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_suffix(f".{variant}.safetensors"))


def assert_same_weights(pipe, small):
    for part in ("unet", "vae", "text_encoder"):
        for a, b in zip(getattr(pipe, part).parameters(), getattr(small, part).parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    "variants",
    [
        {"unet": "fp16", "vae": "fp16", "text_encoder": "fp16"},
        {"unet": "bf16"},
        {"vae": "non_ema", "text_encoder": "ema-only"},
    ],
    ids=["all", "one", "other names"],
)
def test_variants_are_used_where_the_full_weights_are_not_there(untried, copy, small, variants):
    for part, variant in variants.items():
        as_variant(copy / part, variant)
    assert_same_weights(emerdiff.load(copy, device="cpu", dtype=torch.float32), small)


def test_of_full_and_half_weights_the_full_ones_are_used_unless_they_are_a_pointer(untried, copy, small):
    as_variant(copy / "unet", "fp16")
    (copy / UNET).write_text(POINTER)
    assert_same_weights(emerdiff.load(copy, device="cpu", dtype=torch.float32), small)
    half = copy / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(half, copy / UNET)
    half.write_text("not read")
    assert_same_weights(emerdiff.load(copy, device="cpu", dtype=torch.float32), small)


@pytest.fixture
def sharded(copy, small):
    """The copy with a U-Net in half-precision shards alone."""
    (copy / UNET).unlink()
    small.unet.save_pretrained(copy / "unet", variant="fp16", max_shard_size="500KB")
    return copy


def test_shards_of_a_variant_are_used(untried, sharded, small):
    assert len(list(sharded.glob("unet/*-of-*.safetensors"))) > 2
    assert_same_weights(emerdiff.load(sharded, device="cpu", dtype=torch.float32), small)


def test_what_is_wrong_with_shards_is_said(untried, sharded):
    index = sharded / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json"
    shard = next(sharded.glob("unet/*-00002-of-*.safetensors"))
    edit_weights(shard, lambda weights: dict(list(weights.items())[1:]))  # though the index promises it
    assert reason(sharded).startswith("its unet lacks weights that its config.json requires: ")
    shard.write_text(POINTER)
    assert reason(sharded).startswith(f"its unet/{shard.name} is a Git LFS pointer")
    shard.unlink()
    assert reason(sharded) == f"its unet lacks the shard {shard.name}, which its {index.name} names"
    edit_json(index, weight_map={"conv_in.weight": "../vae/diffusion_pytorch_model.safetensors"})
    assert reason(sharded) == f"its unet/{index.name} does not say which shards beside it contain the weights"
    index.unlink()
    assert reason(sharded).startswith("its unet lacks diffusion_pytorch_model.safetensors.index.json")


# --- A clean start

LOAD_ALL = """
import sys
import emerdiff
for model in sys.argv[1:]:
    emerdiff.load(model)
"""


def tiny_autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)


def test_loading_prints_nothing_but_that_the_hub_cannot_be_reached(checkpoint, sharded, tmp_path):
    half = save_as_stable_diffusion(tmp_path / "half", small_parts(), variant="fp16", max_shard_size="500KB")
    vae = tiny_autoencoder()  # the library saves an attribute that it then warns of
    tiny = save_as_stable_diffusion(tmp_path / "tiny", small_parts() | {"vae": vae})
    repository, commit = tmp_path / "hub" / "models--some--model", "0123456789" * 4  # as if it had been downloaded
    shutil.copytree(half, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "HF_HUB_CACHE": str(tmp_path / "hub")}
    command = [sys.executable, "-c", LOAD_ALL, "miniature", checkpoint, half, sharded, tiny, "some/model"]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert (process.returncode, process.stdout) == (0, "")
    offline = r"Couldn't connect to the Hub: .*\nWill try to load from local cache\.\n"  # which matters
    assert re.fullmatch(f"({offline})+", process.stderr)


def bars() -> tuple:
    """What the libraries are told of progress bars: diffusers, transformers, and the hook of the latter."""
    hook = transformers_logging.set_tqdm_hook(None)
    transformers_logging.set_tqdm_hook(hook)
    return diffusers_logging.is_progress_bar_enabled(), transformers_logging.is_progress_bar_enabled(), hook


@pytest.mark.parametrize("enabled", [True, False])
def test_what_the_user_has_set_for_bars_stays(untried, sharded, enabled):
    def hook(factory, args, kwargs):
        return factory(*args, **kwargs)

    transformers_logging.set_tqdm_hook(hook)
    if not enabled:
        diffusers_logging.disable_progress_bar()
    try:
        before = bars()
        emerdiff.load(sharded, device="cpu")
        (sharded / "unet" / "config.json").write_text("{")
        reason(sharded)
        assert bars() == before == (enabled, True, hook)
    finally:
        transformers_logging.set_tqdm_hook(None)
        diffusers_logging.enable_progress_bar()


def test_messages_that_matter_and_those_of_other_threads_are_logged(untried, copy, messages):
    edit_json(copy / "unet" / "config.json", invented=1)
    emerdiff.load(copy, device="cpu")
    assert len(messages) == 1 and "The config attributes {'invented': 1} were passed" in messages[0]

    tiny_autoencoder().save_pretrained(copy / "tiny")
    with quiet():
        AutoencoderTiny.from_pretrained(copy / "tiny")
        assert len(messages) == 1
        other = threading.Thread(target=AutoencoderTiny.from_pretrained, args=[copy / "tiny"])
        other.start()
        other.join()
    assert len(messages) == 2
    AutoencoderTiny.from_pretrained(copy / "tiny")
    assert len(messages) == 3


# --- Folders


@pytest.mark.parametrize("name", ["two words", "Ünïcödé 模型", "v1.5[a]#%20'", "-dash", "link"])
def test_a_folder_may_have_any_name(copy, monkeypatch, name):
    (copy / "scheduler" / "scheduler_config.json").write_text("")  # what is said of it was read from the folder
    folder = copy.with_name(name)
    folder.symlink_to(copy) if name == "link" else copy.rename(folder)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    for way in (folder, f"{folder}/", name, f"./{name}", f"../{folder.parent.name}/{name}", f"~/{name}"):
        assert reason(way) == "its scheduler/scheduler_config.json is empty"


def test_what_is_no_folder_of_a_checkpoint_says_so(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for inside in ("unet", "model_index.json", UNET):
        expected = f"it is part of a checkpoint: give the folder of the whole checkpoint, {checkpoint}"
        assert reason(checkpoint / inside) == expected
    assert reason("") == reason(" ") == "the name is empty"
    assert reason(".").startswith("it has no model_index.json")
    assert "expected str, bytes or os.PathLike" in reason(None)
    assert reason("x\0y").startswith("there is no such folder")
