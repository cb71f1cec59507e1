"""Which latents to decode, where decoding those of every segment would cost more than the network."""

import torch
import torch.nn.functional as F
from torch import Tensor

PATCH = 8  # latent cells a side: about what one of them influences when decoded


def patchwork(latents: Tensor, unmodulated: Tensor, candidates: int) -> tuple[Tensor, Tensor]:
    """Few latents that show, in each patch, the segments that change it most.

    `latents` (k, sides, 4, h, w) are those of the modulated replays, `unmodulated` (1, 4, h, w) those of the
    picture. Returns latents (candidates, sides, 4, h, w), in which each patch is that of one segment, and the
    segments (candidates, h, w) int64. The decoder works nearby, so decoded patches are nearly the segments' own.
    """
    h, w = latents.shape[-2:]
    change = (latents - unmodulated).norm(dim=2).amax(1)  # (k, h, w)
    by_patch = F.max_pool2d(change, min(PATCH, h, w), ceil_mode=True)
    best = by_patch.topk(candidates, dim=0).indices  # (candidates, h / PATCH, w / PATCH)
    owner = best.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)[:, :h, :w]
    at = owner[:, None, None].expand(-1, *latents.shape[1:3], -1, -1)
    return latents.gather(0, at), owner


def scattered(responses: Tensor, owner: Tensor, num_segments: int) -> Tensor:
    """Responses (candidates, 3, H, W) as those of the segments they belong to: (k, 3, H, W), else 0."""
    at = F.interpolate(owner[:, None].double(), size=responses.shape[-2:]).long().expand_as(responses)
    return torch.zeros(num_segments, *responses.shape[1:]).to(responses).scatter_(0, at, responses)
