"""Attention injection: the replay attends as the unperturbed picture does (paper, section 3.2).

There are two ways to compute it, equal up to rounding. Plain: queries and keys are replaced by recorded ones in every
row. Shared: what follows from them is computed once. One self-attention map then serves the values of all rows, and a
cross-attention layer, whose text is the same in every row, returns its recorded output.

In half precision, both ways compute logits and softmax in float32; the plain way does so in PyTorch's fused attention.
Logits may exceed what float16 can hold, which is why some checkpoints set `upcast_attention`, and bfloat16 cannot tell
large ones apart.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from .hooks import attend, edit
from .layers import Layers

MAP_SIZE = 2**25  # elements of the piece of an attention map that is held at once


def recorded_layers(layers: Layers, *, shared: bool) -> tuple[str, ...]:
    """The layers whose outputs the injection needs. The text's keys are not among them, as they never change."""
    projections = [f"{name}.{part}" for name in layers.self_attention for part in ("to_q", "to_k")]
    return (*projections, *(name if shared else f"{name}.to_q" for name in layers.cross_attention))


def injected(
    unet: UNet2DConditionModel, layers: Layers, recorded: Mapping[str, Tensor], *, shared: bool
) -> AbstractContextManager[None]:
    """Within the block, the U-Net attends as it did when these outputs of `recorded_layers` were recorded."""
    if not shared:
        return edit(unet, {name: lambda output, kept=kept: kept.expand_as(output) for name, kept in recorded.items()})
    once = {name: SharedAttention(recorded[f"{name}.to_q"], recorded[f"{name}.to_k"]) for name in layers.self_attention}
    return attend(unet, once | {name: CopiedAttention(recorded[name]) for name in layers.cross_attention})


@dataclass(frozen=True)
class SharedAttention:
    """A processor for the self-attention of many rows with the queries and keys (1, tokens, c) of one."""

    queries: Tensor
    keys: Tensor

    def __call__(self, attn: Attention, hidden_states: Tensor, *_, **__) -> Tensor:
        values = attn.to_v(hidden_states)
        output = shared_attention(*(_heads(x, attn.heads) for x in (self.queries, self.keys, values)), attn.scale)
        for layer in attn.to_out:
            output = layer(output)
        return output


@dataclass(frozen=True)
class CopiedAttention:
    """A processor that returns the output (1, tokens, c) of one row for each row."""

    output: Tensor

    def __call__(self, attn: Attention, hidden_states: Tensor, *_, **__) -> Tensor:
        return self.output.expand(len(hidden_states), -1, -1)


def shared_attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """softmax(scale Q K^T) V with Q and K (1, heads, tokens, c) for all rows of V (rows, heads, tokens, c).

    The values of the rows stand side by side, A [V_1 ... V_rows]. The map A is made a piece at a time, in float32 or
    better, as it is made only once for all rows, and is then rounded to the values' precision.
    Returns (rows, tokens, heads * c).
    """
    _, heads, tokens, _ = queries.shape
    exact = torch.promote_types(queries.dtype, torch.float32)
    queries, keys = scale * queries[0].to(exact), keys[0].to(exact).transpose(-1, -2)
    side_by_side = values.permute(1, 2, 0, 3).flatten(2)  # (heads, tokens, rows * c)
    pieces = queries.split(max(1, MAP_SIZE // (heads * tokens)), dim=1)
    output = torch.cat([(piece @ keys).softmax(-1).to(values.dtype) @ side_by_side for piece in pieces], dim=1)
    return output.unflatten(-1, (len(values), -1)).permute(2, 1, 0, 3).flatten(2)


def _heads(x: Tensor, heads: int) -> Tensor:  # (rows, tokens, c) -> (rows, heads, tokens, c / heads)
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
