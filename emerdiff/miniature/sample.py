"""Pictures that the miniature paints from noise: `python -m emerdiff.miniature.sample --out samples.png`."""

import argparse
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from .. import load

CAPTIONS = (
    "a picture of grey mountains, a green field and a blue sky",
    "blue water with a white boat and two clouds",
    "a yellow tree, green grass and a blue sky in autumn",
    "an orange sky, a black mountain and navy water at sunset",
    "a brown cow on green grass and a fence in summer",
    "a brick house with a red roof and green grass by day",
    "a room with a red sofa, a white wall and a brown floor",
    "a street with two red cars and three people at dusk",
)


def paint(model: str, captions: tuple[str, ...], *, guidance: float, steps: int, seed: int) -> list[Image.Image]:
    """One picture for each caption, by Stable Diffusion's own pipeline with the model's parts."""
    pipe = StableDiffusionPipeline(**load(model, dtype=torch.float32).components, requires_safety_checker=False)
    generator = torch.Generator().manual_seed(seed)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    settings = {"guidance_scale": guidance, "num_inference_steps": steps, "height": side, "width": side}
    return pipe(list(captions), generator=generator, **settings).images


def main() -> None:
    parser = argparse.ArgumentParser("python -m emerdiff.miniature.sample", description=__doc__)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--out", type=Path, default=Path("samples.png"))
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance", type=float, default=4.0)
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
