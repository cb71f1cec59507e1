"""Work on many items in batches that fit into memory, as generators that yield the U-Net rows they have done."""

from collections.abc import Callable, Generator, Iterable, Iterator

from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor

Rows = Generator[int, None, Iterable]  # yields the rows of each U-Net call, returns one result for each item


class Results:
    """Iterates over a generator and keeps what it returns in `value`."""

    def __init__(self, run: Generator) -> None:
        self.run, self.value = run, None

    def __iter__(self) -> Iterator:
        self.value = yield from self.run


def in_batches(items: Tensor, size: int, run: Callable[[Tensor], Rows]) -> Rows:
    """The results of `run` for all items, `size` at a time; where so many do not fit into memory, half as many."""
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
