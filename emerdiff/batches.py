"""Batches that fit into memory: generators that yield the U-Net rows they have computed."""

from collections.abc import Callable, Generator, Iterable, Iterator

import psutil
import torch
from accelerate.utils.memory import should_reduce_batch_size
from diffusers import UNet2DConditionModel
from torch import Tensor

MOST_ROWS = {"cpu": 16, "cuda": 64, "mps": 16}  # of one U-Net call: more are no faster
MOST_BYTES = 2 * 2**30  # off CUDA: 9 rows of Stable Diffusion in bfloat16; a run can be stopped every 10 s or so
ROWS_PER_BATCH = 16  # of runs over many pictures: fixed, so that rounding does not depend on the memory that is free
ACTIVATIONS_PER_ROW = 60  # memory of one more row, in feature maps of the first level; measured: 25 to 45

Rows = Generator[int, None, Iterable]  # yields the rows of each U-Net call, returns one result for each item


class Results:
    """Iterates over a generator and keeps what it returns in `value`."""

    def __init__(self, run: Generator) -> None:
        self.run, self.value = run, None

    def __iter__(self) -> Iterator:
        self.value = yield from self.run


def in_batches(items: Tensor, size: int, run: Callable[[Tensor], Rows]) -> Rows:
    """The results of `run` for all items, `size` at a time; if these do not fit into memory, half as many."""
    done: list = []
    while len(done) < len(items):
        rows_done = 0
        try:
            for rows in (results := Results(run(items[len(done) : len(done) + size]))):
                rows_done += rows
                yield rows
            done += results.value
        except Exception as error:
            if size == 1 or not should_reduce_batch_size(error):
                raise
            size //= 2
            yield -rows_done  # they are run again
    return done


def rows_that_fit(unet: UNet2DConditionModel, x_0: Tensor) -> int:
    """Rows of one U-Net call for latents like `x_0`, in the memory that is free now."""
    channels = unet.config.block_out_channels[0]
    bytes_per_row = ACTIVATIONS_PER_ROW * channels * x_0[0, 0].numel() * unet.dtype.itemsize
    free = min(psutil.virtual_memory().available, MOST_BYTES)
    if x_0.device.type == "cuda":
        unused = torch.cuda.memory_reserved(x_0.device) - torch.cuda.memory_allocated(x_0.device)
        free = torch.cuda.mem_get_info(x_0.device)[0] + unused
    return max(2, min(MOST_ROWS.get(x_0.device.type, 8), int(0.7 * free / bytes_per_row)))
