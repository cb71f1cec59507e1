"""MaskCLIP: text-aligned embeddings of a picture's patches, from any CLIP (Zhou, Loy and Dai, ECCV 2022).

In the last layer each patch keeps its own value instead of attending to the others. A CLIP sees its own square of a
picture at a time: a window of its side slides over the picture by half a side, and where windows overlap, their
embeddings are averaged. So position embeddings stay those that were trained, whatever the size of the picture.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer


def patch_embeddings(clip: CLIPModel, pixels: Tensor) -> Tensor:
    """Embeddings of the patches of windows: (n, 3, side, side) normalised pixels -> (n, side / patch, side / patch, d).

    They are not of unit length.
    """
    vision = clip.vision_model
    tokens = vision.pre_layrnorm(vision.embeddings(pixels))  # (n, 1 + patches, c)
    for layer in vision.encoder.layers[:-1]:
        tokens = layer(tokens, None)
    last = vision.encoder.layers[-1]
    patches = last.layer_norm1(tokens[:, 1:])
    values = last.self_attn.out_proj(last.self_attn.v_proj(patches))
    across = clip.config.vision_config.image_size // clip.config.vision_config.patch_size
    return clip.visual_projection(vision.post_layernorm(values)).unflatten(1, (across, across))


def text_embeddings(clip: CLIPModel, tokenizer: CLIPTokenizer, texts: Sequence[str]) -> Tensor:
    """(n, d) float32, not of unit length."""
    tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
    return clip.get_text_features(**tokens.to(clip.device)).pooler_output.float()


def dense_embeddings(clip: CLIPModel, pixels: Tensor, batch: int = 64) -> Tensor:
    """Embeddings of a picture's patches: (3, H, W) normalised pixels -> (H / patch, W / patch, d).

    H and W are multiples of the patch's side and no less than the model's side.
    """
    side, patch = clip.config.vision_config.image_size, clip.config.vision_config.patch_size
    _, h, w = pixels.shape
    corners = [(y, x) for y in starts(h, side, patch) for x in starts(w, side, patch)]
    windows = torch.stack([pixels[:, y : y + side, x : x + side] for y, x in corners])
    found = torch.cat([patch_embeddings(clip, part) for part in windows.split(batch)]).float()
    total, count = found.new_zeros(h // patch, w // patch, found.shape[-1]), found.new_zeros(h // patch, w // patch, 1)
    for (y, x), window in zip(corners, found, strict=True):
        at = slice(y // patch, (y + side) // patch), slice(x // patch, (x + side) // patch)
        total[at] += window
        count[at] += 1
    return total / count


def starts(length: int, side: int, patch: int) -> Iterator[int]:
    """Where windows begin along a length of pixels: at most half a side apart, on patches, the last at the end."""
    steps = -(-2 * (length - side) // side)
    for i in range(steps + 1):
        yield (length - side) * i // max(steps, 1) // patch * patch
