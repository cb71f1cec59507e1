"""What EmerDiff is compared with: other ways to label each pixel of the same picture, with the same U-Net.

Each takes the pipeline and EmerDiff's result, whose picture, coarse map and settings it shares, and returns labels
(H, W) int32 for the picture as the network saw it. Only EmerDiff itself looks at the result's responses.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import eigh
from sklearn.cluster import KMeans
from torch import Tensor

from ..masks import upsample_nearest
from ..pipeline import EmerDiffPipeline
from ..segmentation import Segmentation
from ..segments import cluster
from ..settings import Settings


def _as_seen(result: Segmentation) -> Settings:
    """Settings with which the network sees `result.image` as it is."""
    return replace(result.settings, image_area=math.prod(result.image.shape[:2]))


# ---------------------------------------------------------------- upsampling the coarse map


def coarse_map(pipe: EmerDiffPipeline, result: Segmentation) -> np.ndarray:
    """What these begin with, computed alone: (h, w) int32. A run finds the same on its way to the responses."""
    features = pipe.features(result.image, _as_seen(result))
    return cluster(features, result.settings.num_segments, result.settings.kmeans_n_init)


def nearest(_pipe: EmerDiffPipeline, result: Segmentation) -> np.ndarray:
    """Each pixel gets the label of its cell."""
    return upsample_nearest(result.coarse_labels, result.image.shape[:2])


def bilinear(_pipe: EmerDiffPipeline, result: Segmentation) -> np.ndarray:
    """The paper's naive baseline: argmax of the upsampled one-hot labels."""
    return result.naive_labels


def joint_bilateral(
    _pipe: EmerDiffPipeline, result: Segmentation, *, radius: int = 2, place: float = 1.0, colour: float = 0.1
) -> np.ndarray:
    """Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007) of the one-hot labels, guided by the picture.

    Cells within `radius` of a pixel's own vote for their labels, weighted by Gaussians of the distance in cells and of
    the difference in RGB (0 to 1).
    """
    k, coarse = result.settings.num_segments, torch.from_numpy(result.coarse_labels).long()
    guide = torch.tensor(result.image).permute(2, 0, 1).float() / 255  # (3, H, W)
    cells = F.adaptive_avg_pool2d(guide, coarse.shape)  # (3, h, w)
    at = [
        (torch.arange(size) + 0.5) * count / size - 0.5
        for size, count in zip(guide.shape[1:], coarse.shape, strict=True)
    ]
    votes = torch.zeros(k, *guide.shape[1:])
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            near = [(x.round().long() + d).clamp(0, n - 1) for x, d, n in zip(at, (dy, dx), coarse.shape, strict=True)]
            inside = [
                (x.round() + d >= 0) & (x.round() + d < n) for x, d, n in zip(at, (dy, dx), coarse.shape, strict=True)
            ]
            distance = (near[0] - at[0])[:, None] ** 2 + (near[1] - at[1])[None] ** 2
            chosen = near[0][:, None], near[1][None]
            change = (guide - cells[:, chosen[0], chosen[1]]).square().sum(0)
            weight = torch.exp(-distance / (2 * place**2) - change / (2 * colour**2)) * (inside[0][:, None] & inside[1])
            votes.scatter_add_(0, coarse[chosen][None], weight[None])
    return votes.argmax(0).int().numpy()


# ---------------------------------------------------------------- without the network


def colour_and_place(_pipe: EmerDiffPipeline, result: Segmentation) -> np.ndarray:
    """k-means on the RGB and the position of each pixel, all from 0 to 1."""
    height, width = result.image.shape[:2]
    y, x = np.indices((height, width))
    pixels = np.dstack([result.image / 255, y / height, x / width]).reshape(-1, 5).astype(np.float32)
    kmeans = KMeans(result.settings.num_segments, n_init=1, random_state=0)
    return kmeans.fit_predict(pixels).reshape(height, width).astype(np.int32)


def superpixels(_pipe: EmerDiffPipeline, result: Segmentation) -> np.ndarray:
    """SLIC superpixels (Achanta et al., PAMI 2012) from scikit-image, about k of them."""
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise ValueError("SLIC needs scikit-image: pip install scikit-image") from error
    return slic(result.image, result.settings.num_segments, start_label=0).astype(np.int32)


# ---------------------------------------------------------------- published, training-free


def diffseg(
    pipe: EmerDiffPipeline,
    result: Segmentation,
    *,
    timestep: int = 300,
    anchors: int = 16,
    rounds: int = 3,
    threshold: float = 1.0,
) -> np.ndarray:
    """DiffSeg (Tian et al., CVPR 2024): self-attention maps of all layers are added up and merged by their divergence.

    The maps of `anchors` x `anchors` cells are proposals. In each of `rounds`, those within `threshold` of each other
    (symmetric Kullback-Leibler divergence) are averaged. Each pixel gets the proposal that is largest there. The number
    of segments is a result, not a setting.
    """
    maps = _self_attention(pipe, result, timestep)  # (cells, h, w), each summing to 1
    h, w = maps.shape[1:]
    flat = maps.flatten(1)
    rows, columns = (torch.linspace(0, n - 1, min(anchors, n)).round().long() for n in (h, w))
    proposals = flat[(rows[:, None] * w + columns).flatten()]
    near = _divergence(proposals, flat) < threshold
    proposals = near.to(flat) @ flat / near.sum(1, keepdim=True).clamp(min=1)
    for _ in range(rounds - 1):
        merged = []
        while len(proposals):
            near = (_divergence(proposals[:1], proposals) < threshold)[0]
            near[0] = True
            merged.append(proposals[near].mean(0))
            proposals = proposals[~near]
        proposals = torch.stack(merged)
    shown = F.interpolate(proposals.unflatten(1, (h, w))[None], size=result.image.shape[:2], mode="bilinear")
    return shown[0].argmax(0).int().numpy()


def _self_attention(pipe: EmerDiffPipeline, result: Segmentation, timestep: int) -> Tensor:
    """Attention of each cell at the latents' resolution, (h w, h, w): mean over layers, weighted by their side."""
    projections = [f"{name}.{part}" for name in pipe.layers.self_attention for part in ("to_q", "to_k")]
    outputs = pipe.outputs(result.image, projections, timestep, _as_seen(result))
    size = [side // pipe.vae_scale_factor for side in result.image.shape[:2]]
    total, weights = None, 0
    for name in pipe.layers.self_attention:
        attention, heads = pipe.unet.get_submodule(name), pipe.unet.get_submodule(name).heads
        queries, keys = (
            outputs[f"{name}.{part}"][0].float().unflatten(-1, (heads, -1)).transpose(0, 1) for part in ("to_q", "to_k")
        )
        probabilities = sum((attention.scale * q @ k.T).softmax(-1) for q, k in zip(queries, keys, strict=True)) / heads
        factor = round((size[0] * size[1] / len(probabilities)) ** 0.5)
        own = [side // factor for side in size]
        maps = probabilities.unflatten(1, own)  # (own cells, own)
        if factor > 1:  # otherwise they have the size already, and are far the largest
            maps = F.interpolate(maps[None], size=size, mode="bilinear")[0]  # (own cells, h, w)
        maps /= maps.sum((1, 2), keepdim=True)
        if factor > 1:
            cells = torch.from_numpy(upsample_nearest(np.arange(len(maps)).reshape(own), size)).flatten()
            maps = maps[cells.to(maps.device)]
        maps /= factor
        total, weights = maps if total is None else total.add_(maps), weights + 1 / factor
    return (total / weights).cpu()


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """(n, m): symmetric Kullback-Leibler divergence of distributions (n, c) and (m, c), the mean of both directions."""
    log_p, log_q = (x.clamp(min=1e-12).log() for x in (p, q))
    forward = (p * log_p).sum(1)[:, None] - p @ log_q.T
    return (forward + (q * log_q).sum(1)[None] - log_p @ q.T) / 2


def diffcut(
    pipe: EmerDiffPipeline,
    result: Segmentation,
    *,
    timestep: int = 50,
    sharpness: float = 10,
    threshold: float = 0.5,
) -> np.ndarray:
    """DiffCut (Couairon et al., NeurIPS 2024): recursive cuts of a graph of the encoder's last self-attention features.

    The features are those at the resolution of the low-resolution grid. Cells are nodes; the weight of an edge is the
    cosine of their features to the power of `sharpness`. A part is cut in two as long as its normalized cut is below
    `threshold`. Each pixel then goes to the part whose mean feature is nearest to the upsampled feature there. The
    paper's final refinement of pixels is left out.
    """
    cells = result.coarse_labels.size
    encoder = [name for name in pipe.layers.self_attention if name.startswith("down_blocks")]
    outputs = pipe.outputs(result.image, encoder, timestep, _as_seen(result))
    fitting = [outputs[name] for name in encoder if outputs[name].shape[1] == cells]
    if not fitting:
        raise ValueError("DiffCut needs self-attention in the network's encoder at the low-resolution grid's size")
    features = F.normalize(fitting[-1][0].float().cpu(), dim=1)  # (cells, c)
    affinity = (features @ features.T).clamp(min=0).double().numpy() ** sharpness
    parts = _cut(affinity, np.arange(cells), threshold)
    means = F.normalize(torch.stack([features[torch.from_numpy(part)].mean(0) for part in parts]), dim=1)
    by_cell = features.T.unflatten(1, result.coarse_labels.shape)[None]  # (1, c, h, w)
    similarity = torch.einsum("nc,bchw->bnhw", means, by_cell)  # linear, so it can be upsampled instead
    shown = F.interpolate(similarity, size=result.image.shape[:2], mode="bilinear")
    return shown[0].argmax(0).int().numpy()


def _cut(affinity: np.ndarray, part: np.ndarray, threshold: float) -> list[np.ndarray]:
    """Divides the nodes `part` by recursive normalized cuts (Shi and Malik, PAMI 2000)."""
    if len(part) < 2:
        return [part]
    own = affinity[np.ix_(part, part)]
    degree = own.sum(1)
    _, vectors = eigh(np.diag(degree) - own, np.diag(degree), subset_by_index=(1, 1))
    vector = vectors[:, 0]
    splits = [vector > value for value in np.linspace(vector.min(), vector.max(), 12)[1:-1]]
    costs = [_normalized_cut(own, degree, split) for split in splits]
    best = int(np.argmin(costs))
    if costs[best] >= threshold:
        return [part]
    return [p for side in (splits[best], ~splits[best]) for p in _cut(affinity, part[side], threshold)]


def _normalized_cut(affinity: np.ndarray, degree: np.ndarray, split: np.ndarray) -> float:
    if split.all() or not split.any():
        return np.inf
    between = affinity[np.ix_(split, ~split)].sum()
    return between / degree[split].sum() + between / degree[~split].sum()


EMERDIFF = "EmerDiff"
METHODS: Mapping[str, Callable[[EmerDiffPipeline, Segmentation], np.ndarray]] = {
    EMERDIFF: lambda _pipe, result: result.labels,
    "nearest": nearest,
    "bilinear": bilinear,
    "joint bilateral": joint_bilateral,
    "colour and position": colour_and_place,
    "SLIC": superpixels,
    "DiffSeg": diffseg,
    "DiffSeg 0.12": partial(diffseg, threshold=0.12),  # on the miniature, about as many segments as EmerDiff's 12
    "DiffCut": diffcut,
    "DiffCut 0.9": partial(diffcut, threshold=0.9),  # likewise
}
