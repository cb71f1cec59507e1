"""The pictures that training sees: drawn ahead by worker processes, and kept as rows of tensors."""

import functools
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .leaves import draw_leaves
from .photographs import Photograph, Photographs
from .scenes import draw_scene

FIRST_SEED = 1_000_000  # scenes below are never trained on: they are for tests, examples and evaluation
LEAVES_SHARE, ROOMS_SHARE, PORTRAITS_SHARE = 0.15, 0.15, 0.05  # of the drawn ones; seeds choose the rest


def draw(turn: tuple[int, Photograph | None], side: int) -> tuple[np.ndarray, str]:
    """Picture (side, side, 3) uint8 and caption of a training seed: its photograph, or drawn if it has none."""
    seed, photograph = turn
    if photograph:
        return photograph.draw(seed, side)
    at = np.random.default_rng([seed, 0]).random()
    if at < LEAVES_SHARE:
        return draw_leaves(seed, side)
    at -= LEAVES_SHARE
    kind = "room" if at < ROOMS_SHARE else "portrait" if at < ROOMS_SHARE + PORTRAITS_SHARE else None
    scene = draw_scene(seed, side, kind)
    return scene.image, scene.caption


class Stream:
    """Pictures drawn ahead by worker processes, a share of them from `photographs`; at most `ahead` are waiting.

    `draw` makes one of a seed and its photograph, at the side. The workers are forked: make the stream before anything
    touches a GPU.
    """

    def __init__(
        self,
        first_seed: int,
        side: int,
        photographs: Photographs,
        *,
        workers: int,
        ahead: int = 512,
        draw: Callable = draw,
    ) -> None:
        self.next_seed, self._photographs, self._closed = first_seed, photographs, False
        self._room = threading.Semaphore(ahead)
        self._drawn: queue.Queue[tuple[np.ndarray, str]] = queue.Queue()
        self._draw = functools.partial(draw, side=side)
        self._pool = multiprocessing.get_context("fork").Pool(workers, os.nice, (10,))
        threading.Thread(target=self._run, daemon=True).start()

    def _turns(self) -> Iterator[tuple[int, Photograph | None]]:
        while self._room.acquire() and not self._closed:
            self.next_seed += 1
            yield self.next_seed - 1, self._photographs.of(self.next_seed - 1)

    def _run(self) -> None:
        for drawn in self._pool.imap_unordered(self._draw, self._turns()):
            self._drawn.put(drawn)

    def take(self, at_most: int, at_least: int) -> list[tuple[np.ndarray, str]]:
        """The pictures that are ready, waiting only for the first `at_least`."""
        taken: list[tuple[np.ndarray, str]] = []
        while len(taken) < max(at_most, at_least) and (len(taken) < at_least or not self._drawn.empty()):
            taken.append(self._drawn.get())
            self._room.release()
        return taken

    def close(self) -> None:
        self._closed = True
        self._room.release()  # otherwise the pool would wait for the last seed
        self._pool.terminate()


class Store:
    """Rows of fixed shapes in preallocated tensors on one device, until it is full."""

    def __init__(self, rows: int, device: torch.device, *shapes: tuple[tuple[int, ...], torch.dtype]) -> None:
        self.tensors = [torch.zeros(rows, *shape, dtype=dtype, device=device) for shape, dtype in shapes]
        self.rows, self.length = rows, 0

    def __len__(self) -> int:
        return self.length

    def add(self, *values: Tensor) -> None:
        end = self.length + len(values[0])
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor[self.length : end] = value.to(tensor.device, tensor.dtype)
        self.length = end

    def save(self, file: Path) -> None:
        torch.save([tensor[: len(self)].clone() for tensor in self.tensors], file)

    def load(self, file: Path) -> None:
        self.add(*torch.load(file, weights_only=True))

    def sample(self, count: int) -> list[Tensor]:
        at = torch.randint(len(self), (count,), device=self.tensors[0].device)
        return [tensor[at] for tensor in self.tensors]

    def take(self, stream: Stream, at_most: int, *, at_least: int) -> list[tuple[np.ndarray, str]]:
        """Pictures from `stream`, as many as there is room for; waits until there are `at_least` rows in all."""
        room = self.rows - len(self)
        return stream.take(min(at_most, room), at_least=min(at_least - len(self), room))


def random_crops(x: Tensor, side: int) -> Tensor:
    """One random square crop for the whole batch: (b, c, H, W) -> (b, c, side, side)."""
    top, left = (int(torch.randint(size - side + 1, ())) for size in x.shape[-2:])
    return x[..., top : top + side, left : left + side]
