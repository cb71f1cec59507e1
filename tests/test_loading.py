import json
import shutil

import numpy as np
import pytest
import torch
from conftest import quick, save_as_stable_diffusion, small_parts
from diffusers import AutoencoderTiny, DDPMPipeline, DDPMScheduler, UNet2DModel

import emerdiff
from emerdiff import EmerDiffPipeline, Settings

SCHEDULERS = {"small": "PNDMScheduler", "small_v2": "DDIMScheduler"}


@pytest.fixture
def copy(checkpoint, tmp_path):
    """The checkpoint's folder, to be spoiled."""
    return shutil.copytree(checkpoint, tmp_path / "copy")


def edit_json(path, **changes):
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not ...}))


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
    defaults = {"num_segments": 3, "strength": 4.0, "kmeans_n_init": "auto", "keep_aspect": False}
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


def test_half_precision_loads_and_gives_finite_results_close_to_the_full(checkpoint, small, picture):
    pipe = emerdiff.load(checkpoint, device="cpu", dtype=torch.bfloat16)
    assert {pipe.unet.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    assert pipe.vae.dtype == torch.float32  # bfloat16 cannot tell apart what the method compares
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
    [("nobody/has-this", "the Hub cannot be reached"), (None, "its latents are of another shape")],
    ids=["not there", "another shape"],
)
def test_an_autoencoder_that_cannot_be_used_leaves_the_models_own_and_says_why(
    checkpoint, small, picture, tmp_path, autoencoder, reason
):
    autoencoder = autoencoder or save_tiny_autoencoder(tmp_path, levels=4)
    with pytest.warns(UserWarning, match=f"the model's own autoencoder is used.*{reason}"):
        pipe = emerdiff.load(checkpoint, device="cpu", dtype=torch.float32, autoencoder=autoencoder)
    assert_same(pipe(picture, quick()), small(picture, quick()))


def test_unused_parts_of_a_checkpoint_need_not_be_there(copy):
    unused = ["stable_diffusion", "StableDiffusionSafetyChecker"], ["transformers", "CLIPImageProcessor"]
    edit_json(copy / "model_index.json", safety_checker=unused[0], feature_extractor=unused[1])
    pipe = emerdiff.load(copy, device="cpu")
    assert pipe.safety_checker is None and pipe.feature_extractor is None


# --- What does not, and why


def test_a_hub_id_that_is_not_on_this_machine_says_so_when_the_hub_cannot_be_reached():
    expected = "it is not on this machine, and the Hub cannot be reached (no network, or offline mode)"
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
    with pytest.raises(ValueError, match="model_index.json does not hold a JSON object"):
        emerdiff.load(copy, device="cpu")


def test_a_model_that_predicts_the_sample_is_refused_when_it_is_loaded(copy):
    edit_json(copy / "scheduler" / "scheduler_config.json", prediction_type="sample")
    with pytest.raises(ValueError, match="cannot load .*models that predict 'sample' are not supported"):
        emerdiff.load(copy, device="cpu")


def test_a_single_file_says_so(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert reason(tmp_path / "model.safetensors").startswith("it is a single file; ")


@pytest.mark.parametrize("part", ["unet", "tokenizer", "text_encoder", "vae", "scheduler"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    assert reason(copy) == f"its folder {part} is missing"
    edit_json(copy / "model_index.json", **{part: [None, None]})
    assert reason(copy) == f"it is a StableDiffusionPipeline without a {part}"
    edit_json(copy / "model_index.json", **{part: ...})
    assert reason(copy) == f"it is a StableDiffusionPipeline without a {part}"


def test_pickled_weights_are_not_loaded_and_that_is_said(tmp_path):
    save_as_stable_diffusion(tmp_path, small_parts(), safe_serialization=False)
    assert list(tmp_path.glob("unet/*.bin"))
    assert reason(tmp_path).startswith("its weights are not there as safetensors, and pickled weights are not loaded")


def test_weights_that_break_off_are_called_damaged(copy):
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert reason(copy).startswith("its weights are damaged: ")


def test_a_pipeline_of_another_kind_says_what_it_lacks(tmp_path):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    unet = UNet2DModel(sample_size=8, block_out_channels=(32, 32), **blocks)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    assert reason(tmp_path) == "it is a DDPMPipeline without a vae"


def test_a_denoiser_of_another_class_is_named_before_its_weights_are_read(copy):
    edit_json(copy / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"])
    for weights in copy.glob("*/*.safetensors"):
        weights.unlink()
    assert reason(copy) == "its denoiser is a FluxTransformer2DModel; EmerDiff needs a UNet2DConditionModel"


def test_an_inpainting_model_is_refused_with_its_channels(tmp_path):
    save_as_stable_diffusion(tmp_path, small_parts(in_channels=9))
    assert "takes 9 channels and predicts 4 (an inpainting or editing model?)" in reason(tmp_path)


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
