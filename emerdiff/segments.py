"""Low-resolution segments: k-means on the queries of one cross-attention layer (paper, section 3.1)."""

from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor

from .batches import Rows, in_batches
from .hooks import reach
from .inversion import Step, predict
from .prompt import Prompt


@torch.inference_mode()
def draw_features(
    unet: UNet2DConditionModel,
    x_0: Tensor,
    prompt: Prompt,
    step: Step,
    *,
    noise: Callable[[], Tensor],
    layer: str,
    draws: int,
    first: Tensor | None,
    rows: int,
) -> Generator[int, None, np.ndarray]:
    """Mean query of each grid cell over independent noise draws: (cells, c) float32, rows of the grid in order.

    `first`, if given, is the query (1, cells, c) of the first draw, known from the inversion. The others are
    computed `rows` at a time, no further than the layer; yields the rows of each U-Net call.
    """

    def queries_of(x_t: Tensor) -> Rows:
        with reach(unet, layer) as outputs:
            predict(unet, x_t, step.t, prompt)
        yield len(x_t)
        return outputs[0].float()

    x_t = torch.cat([step.add_noise(x_0, noise()) for _ in range(draws)])
    known = [] if first is None else [first[0].float()]
    queries = known + (yield from in_batches(x_t[len(known) :], rows, queries_of))
    return torch.stack(queries).mean(0).cpu().numpy()


def cluster(features: np.ndarray, num_segments: int, n_init: int) -> np.ndarray:
    """The cluster, int32, of each feature (..., c); the notebook's seed, so that results can be compared."""
    kmeans = KMeans(num_segments, init="k-means++", n_init=n_init, algorithm="lloyd", random_state=1234)
    with threadpool_limits(1):  # so few points are clustered three times as fast by one thread as by two
        return kmeans.fit_predict(features.reshape(-1, features.shape[-1])).reshape(features.shape[:-1])


def cluster_together(features: Sequence[np.ndarray], num_segments: int, n_init: int) -> list[np.ndarray]:
    """The clusters, int32, of the features (..., c) of several pictures, found in all of them at once.

    The pictures are put into an order of their own before, so that theirs changes nothing.
    """
    order = sorted(range(len(features)), key=lambda i: features[i].tobytes())
    cells = [features[i].reshape(-1, features[i].shape[-1]) for i in order]
    labels = cluster(np.concatenate(cells), num_segments, n_init)
    parts = np.split(labels, np.cumsum([len(own) for own in cells])[:-1])
    of = dict(zip(order, parts, strict=True))
    return [of[i].reshape(one.shape[:-1]) for i, one in enumerate(features)]
