"""The tab Help: what the page shows, in words."""

import gradio as gr

from .page import Page
from .session import FINE

HELP = f"""
1. **Coarse map.** k-means groups what the network computes in a grid of 16 × 16 cells, into segments.
2. **Naive upsampling.** That map, enlarged: what one gets without EmerDiff.
3. **EmerDiff.** For each segment the picture is painted twice more, with the network pushed up and down (± strength)
   inside that segment, at one timestep. Each pixel goes to the segment whose push changes it most.

The same colour is the same segment everywhere, also when *k* moves.

**Moving k** does not run the network. A run finds {FINE} segments; fewer are made by merging those with the nearest
features, whose responses are added. "Recompute exactly" runs the network for just this *k*; what it finds is shown
wherever *k* is that number.

**Quality.** *Exact* is the published procedure. *Fast* makes 6 denoising steps where *exact* makes about 20, and
*preview* makes 3, both with the push up alone; *preview* also decodes in half precision. Their masks are rougher.

The **miniature** is a small model trained on drawn scenes, so that everything here runs without a download; it knows
little of photographs. Stable Diffusion does, and wants a GPU.
"""


def build(page: Page) -> None:
    with gr.Tab("Help"):
        gr.Markdown(HELP)
