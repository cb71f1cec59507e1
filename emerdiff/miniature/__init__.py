"""The miniature: a small latent diffusion model with Stable Diffusion's topology, and the world it was trained on."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"  # diffusers layout; loaded like any other checkpoint
CLIP = Path(__file__).parent / "clip"  # a small CLIP for names, in transformers' layout; likewise
