"""Low-resolution segments: k-means on the queries of one cross-attention layer (paper, section 3.1)."""

from collections.abc import Callable, Generator

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from sklearn.cluster import KMeans
from torch import Tensor

from .hooks import record
from .inversion import Step, predict


@torch.inference_mode()
def draw_features(
    unet: UNet2DConditionModel,
    x_0: Tensor,
    prompt: Tensor,
    step: Step,
    *,
    noise: Callable[[], Tensor],
    layer: str,
    draws: int,
    first: Tensor | None,
) -> Generator[int, None, np.ndarray]:
    """Mean query of each grid cell over independent noise draws: (cells, c) float32, rows of the grid in order.

    `first`, if given, is the query (1, cells, c) of the first draw, known from the inversion. Yields after
    each U-Net row.
    """
    total = 0.0
    for draw in range(draws):
        x_t = step.add_noise(x_0, noise())
        if draw == 0 and first is not None:
            queries = first
        else:
            with record(unet, [layer]) as outputs:
                predict(unet, x_t, step.t, prompt)
            queries = outputs[layer]
            yield 1
        total = total + queries[0].float()
    return (total / draws).cpu().numpy()


def cluster(features: np.ndarray, num_segments: int, n_init: int | str) -> np.ndarray:
    """Cluster index of each feature, (cells,) int32; the notebook's seed, so that results can be compared."""
    kmeans = KMeans(num_segments, init="k-means++", n_init=n_init, algorithm="lloyd", random_state=1234)
    return kmeans.fit_predict(features)
