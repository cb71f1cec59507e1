"""Pictures that the miniature paints from noise: `python -m emerdiff.miniature.sample --out samples.png`."""

import argparse
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

from .. import load

CAPTIONS = (
    "green grass and a blue sky",
    "a picture of grey mountains, a green field and a blue sky",
    "an orange sky, a black mountain and navy water at sunset",
    "a yellow tree, green grass and a blue sky in autumn",
    "a winter scene by day with snow, white hills and a blue sky",
    "a summer scene by day with a blue sky, blue water and a white boat",
    "a brick house with a red roof and green grass by day",
    "a room with a red sofa, a white wall and a brown floor",
)


def paint(model: str, captions: tuple[str, ...], *, guidance: float, steps: int, seed: int) -> list[Image.Image]:
    """One picture for each caption, by Stable Diffusion's own pipelines with the model's parts.

    Painted from noise at half the side, where layout was learned; then enlarged, half noised and painted at full side.
    """
    own = load(model, dtype=torch.float32).components
    parts = {name: own[name] for name in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")}
    parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    from_noise, refine = StableDiffusionPipeline(**parts), StableDiffusionImg2ImgPipeline(**parts)
    side = from_noise.unet.config.sample_size * from_noise.vae_scale_factor
    generator = torch.Generator().manual_seed(seed)
    settings = {"guidance_scale": guidance, "num_inference_steps": steps, "generator": generator}
    small = from_noise(list(captions), height=side // 2, width=side // 2, **settings).images
    large = [picture.resize((side, side), Image.Resampling.BICUBIC) for picture in small]
    return refine(list(captions), image=large, strength=0.5, **settings).images


def main() -> None:
    parser = argparse.ArgumentParser("python -m emerdiff.miniature.sample", description=__doc__)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    plot, axes = plt.subplots(2, len(CAPTIONS) // 2, figsize=(12, 7))
    pictures = paint(options.model, CAPTIONS, guidance=options.guidance, steps=options.steps, seed=options.seed)
    for axis, picture, caption in zip(axes.flat, pictures, CAPTIONS, strict=True):
        axis.imshow(picture)
        axis.set_title(textwrap.fill(caption, 36), fontsize=9)
        axis.axis("off")
    plot.tight_layout(pad=0.5)
    plot.savefig(options.out, dpi=70)


if __name__ == "__main__":
    main()
