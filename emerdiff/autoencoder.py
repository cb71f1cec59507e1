"""From pictures to latents and back, by a checkpoint's autoencoder."""

from contextlib import AbstractContextManager

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from torch import Tensor

from .masks import magnification
from .picture import to_tensor

Autoencoder = AutoencoderKL | AutoencoderTiny


@torch.inference_mode()
def encode(vae: Autoencoder, picture: Image.Image, device: torch.device) -> Tensor:
    """x_0 (1, 4, h, w) float32: the posterior's mean, scaled."""
    with _without_tf32():
        encoded = vae.encode(to_tensor(picture).to(device, vae.dtype))
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    return latents.float() * vae.config.scaling_factor


@torch.inference_mode()
def decode(vae: Autoencoder, latents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Pictures (b, 3, H, W) float32, about [-1, 1]; not clamped, so that small differences survive.

    Computed in `dtype` if given, else in the autoencoder's own; two at a time, as more would only need more memory. In
    float16 they may be infinite or NaN: the decoder of Stable Diffusion XL has larger activations than that can hold.
    """
    latents = (latents / vae.config.scaling_factor).to(vae.dtype)
    with _without_tf32(), torch.autocast(latents.device.type, dtype, enabled=dtype is not None):
        return torch.cat([vae.decode(some).sample.float() for some in latents.split(2)])


@torch.inference_mode()
def decode_magnified(
    vae: Autoencoder, latents: Tensor, dtype: torch.dtype, *, x_0: Tensor, reference: Tensor
) -> Tensor:
    """Pictures (b, 3, H, W) float32 to first order around the `reference`, which is decoded from `x_0` in `dtype`.

    For `dtype`s of half precision: what changes is magnified before it is decoded, so that rounding is small beside it.
    Where activations exceed what float16 can hold, the autoencoder's own precision is used.
    """
    changes = latents - x_0
    factors = magnification(changes)
    magnified = x_0 + factors * changes
    decoded = decode(vae, magnified, dtype)
    if not decoded.isfinite().all():
        decoded = decode(vae, magnified)
    return reference + (decoded - reference) / factors


def _without_tf32() -> AbstractContextManager[None]:
    """Within the block, CUDA's convolutions in float32 are just that: by default they round as float16 does."""
    cudnn = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    return cudnn.flags(**kept, allow_tf32=False)
