"""The tab Help: what the page shows, in words."""

import gradio as gr

from .page import Page
from .session import FINE

HELP = f"""
1. **Coarse map.** The network describes the picture in a grid of 16 × 16 cells; k-means groups these into *k* segments.
2. **Coarse guess.** The coarse map, enlarged ("naive upsampling"): what you would get without EmerDiff.
3. **EmerDiff.** For each segment the network paints the picture twice more, perturbed by + and − the strength inside
   that segment. Each pixel goes to the segment that changes it most.

A segment has the same colour everywhere, and keeps it when *k* changes.

**Changing k** does not run the network. A run finds {FINE} segments. Fewer are made by merging the segments with the
most similar features and adding up their changes. **Recompute at this k** runs the network for this *k* alone; its
result is shown whenever *k* has that value.

**Your photo** is segmented roughly first, within seconds, and then better; **Refine exactly** makes it as published.

**Quality.** *Exact* is the published procedure. *Fast* makes 6 denoising steps where *exact* makes 20 with the
miniature (15 with Stable Diffusion), and *preview* makes 3. Both perturb in one direction only, and *preview* also
decodes in half precision. Their masks are rougher.

**Detail** is the side, in pixels, at which the network sees the picture. More gives finer outlines and takes longer.
For a photograph with the miniature, 384 px, *Timestep* 581 and *Perturbation strength* 30 give clearly finer outlines
than its own settings, in about twice the time.

**Model.** The *miniature* is small and trained on drawn scenes, so that everything works without a download. It knows
little about photographs. *Stable Diffusion* knows more, but is made for a GPU. *Stable Diffusion, light* is a smaller
version for CPUs: it sees 384 × 384 pixels, so its grid has 12 × 12 cells. On a CPU, every Stable Diffusion decodes with
a small autoencoder where that can be had, which is faster and less exact.

**A Space of your own.** Duplicate this one and choose its hardware. *CPU basic* starts with the miniature and can run
*Stable Diffusion, light*. *ZeroGPU* and every *Nvidia* GPU start with Stable Diffusion 1.5, whose weights are fetched
while the Space is built. The variable `EMERDIFF_MODEL` names another model to start with.
"""


def build(page: Page) -> None:
    with gr.Tab("Help"):
        gr.Markdown(HELP)
