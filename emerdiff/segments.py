"""Low-resolution segments: k-means on the queries of one cross-attention layer (paper, section 3.1)."""

from collections.abc import Callable, Generator, Sequence

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
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
    """The clusters, int32, of the features (..., c) of several pictures, one set for all.

    Each picture is clustered alone, as k-means over all cells at once mostly tells pictures apart, not things. Then
    the clusters of each are matched one to one with those before, so that the squared distances of their means are
    least, and each cell gets the cluster whose mean over the pictures is nearest. The pictures are put into an order
    of their own before, so that theirs changes nothing.
    """
    alone = [cluster(one, num_segments, n_init) for one in features]
    if len(features) == 1:
        return alone
    cells = [one.reshape(-1, one.shape[-1]) for one in centred(features)]
    order = sorted(range(len(features)), key=lambda i: features[i].tobytes())
    means = [np.stack([cells[i][alone[i].ravel() == j].mean(0) for j in range(num_segments)]) for i in order]
    shared = means[0]
    for count, own in enumerate(means[1:], 1):
        partners = linear_sum_assignment(cdist(shared, own, "sqeuclidean"))[1]
        shared = (count * shared + own[partners]) / (count + 1)
    return [cdist(own, shared).argmin(1).astype(np.int32).reshape(a.shape) for own, a in zip(cells, alone, strict=True)]


def centred(features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The features (..., c) of several pictures, float64, less each one's mean; one alone stays."""
    features = [one.astype(float) for one in features]
    return [one - one.reshape(-1, one.shape[-1]).mean(0) for one in features] if len(features) > 1 else features
