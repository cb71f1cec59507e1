"""Reading and changing a network from outside, by hooks that last as long as a `with` block.

Each block holds the network's lock, so that runs that share a network never see each other's hooks.
"""

import difflib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from torch import Tensor, nn

Edit = Callable[[Tensor], Tensor]  # a layer's output -> what is passed on instead

_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()


@contextmanager
def exclusive(network: nn.Module) -> Iterator[None]:
    """Within the block, no other thread uses `network`; blocks may be nested."""
    with _locks_lock:
        lock = _locks.setdefault(network, threading.RLock())
    with lock:
        yield


def layer(network: nn.Module, name: str) -> nn.Module:
    """The module with a dotted name; if there is none, `ValueError` lists similar names."""
    try:
        return network.get_submodule(name)
    except AttributeError:
        near = difflib.get_close_matches(name, dict(network.named_modules()), n=5)
        raise ValueError(f"the network has no layer {name!r}; similar names: {', '.join(near) or 'none'}") from None


@contextmanager
def edit(network: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Within the block, the output of each named layer is replaced by its edit of it."""
    with exclusive(network), ExitStack() as stack:
        for name, change in edits.items():
            handle = layer(network, name).register_forward_hook(lambda _m, _args, output, change=change: change(output))
            stack.callback(handle.remove)
        yield


@contextmanager
def record(network: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Within the block, the outputs of the named layers are put into the dictionary that is yielded.

    A layer that has not run by the end of the block raises `RuntimeError`.
    """
    names, outputs = tuple(names), {}

    def keep(name: str) -> Edit:
        def kept(output: Tensor) -> Tensor:
            outputs[name] = output
            return output

        return kept

    with edit(network, {name: keep(name) for name in names}):
        yield outputs
    if missing := [name for name in names if name not in outputs]:
        raise RuntimeError(f"recorded layers that never ran: {', '.join(missing)}")


class _Reached(Exception):
    pass


@contextmanager
def reach(network: nn.Module, name: str) -> Iterator[list[Tensor]]:
    """Within the block, a call of the network ends, without a result, as soon as the named layer has run.

    The layer's output is put into the list that is yielded. Statements after the call are skipped.
    """
    outputs: list[Tensor] = []

    def stop(output: Tensor) -> Tensor:
        outputs.append(output)
        raise _Reached

    with suppress(_Reached), edit(network, {name: stop}):
        yield outputs


@contextmanager
def attend(network: nn.Module, processors: Mapping[str, Callable]) -> Iterator[None]:
    """Within the block, the named attention layers compute with these attention processors."""
    with exclusive(network), ExitStack() as stack:
        for name, processor in processors.items():
            attention = layer(network, name)
            stack.callback(attention.set_processor, attention.processor)
            attention.set_processor(processor)
        yield


@contextmanager
def widen(network: nn.Module, names: Iterable[str], rows: int) -> Iterator[None]:
    """Within the block, tensors of one row among the named layers' arguments are expanded to `rows`.

    So a network that is given one row can continue with several from the layer at which they begin to differ.
    """

    def expand(value):
        if isinstance(value, tuple):
            return tuple(expand(v) for v in value)
        return value.expand(rows, *value.shape[1:]) if isinstance(value, Tensor) and len(value) == 1 else value

    def hook(_module, args, kwargs):
        return expand(args), {name: expand(value) for name, value in kwargs.items()}

    with exclusive(network), ExitStack() as stack:
        for name in names:
            stack.callback(layer(network, name).register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield
