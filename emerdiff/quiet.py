"""Keeps diffusers and transformers from printing while they read a checkpoint that this package checks itself."""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

NEEDLESS = {  # by logger; all other messages are printed
    # diffusers itself writes this attribute when it saves one of these
    "diffusers.configuration_utils": re.compile(r"\{'block_out_channels': [^'}]*\} were passed to AutoencoderTiny"),
    # prompts are made with the tokenizer's own tokens, and these are checked
    "transformers.configuration_utils": re.compile(r"Model config: \w+_token_id must be"),
    # weights that are missing, left over or misshapen are errors here, wherever they matter
    # nor is there any layer in them that has to stay in float32
    "diffusers.models.modeling_utils": re.compile(r"^Some weights of|should be kept in float32: \[\]"),
    "transformers.modeling_utils": re.compile(r"LOAD REPORT"),
    # diffusers imports what prepares pictures for parts that are not used
    "transformers.utils.import_utils": re.compile(r"ImageProcessor` requires torchvision"),
}
_LOCK = threading.RLock()  # one block at a time, so that each finds and restores what the user has set


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block, this thread shows no progress bars and none of the messages that are `NEEDLESS`.

    Levels and handlers of loggers stay as they are, and so do messages and transformers' bars of other threads;
    diffusers can only switch its bars off for all threads.
    """
    with _LOCK, without_needless_messages(), ExitStack() as stack:
        before = transformers_logging.set_tqdm_hook(None)
        stack.callback(transformers_logging.set_tqdm_hook, before)
        transformers_logging.set_tqdm_hook(_without_bar(before))
        if diffusers_logging.is_progress_bar_enabled():
            diffusers_logging.disable_progress_bar()
            stack.callback(diffusers_logging.enable_progress_bar)
        yield


@contextmanager
def without_needless_messages() -> Iterator[None]:
    """As `quiet`, but with progress bars, such as those of a download."""
    with ExitStack() as stack:
        for name, pattern in NEEDLESS.items():
            logger, needed = logging.getLogger(name), _filter(pattern)
            logger.addFilter(needed)
            stack.callback(logger.removeFilter, needed)
        yield


def _filter(needless: re.Pattern) -> Callable[[logging.LogRecord], bool]:
    thread = threading.get_ident()
    return lambda record: record.thread != thread or not needless.search(record.getMessage())


def _without_bar(hook: Callable | None) -> Callable:
    """A hook of transformers for tqdm that hides the bars of this thread, and leaves others to `hook`."""
    thread = threading.get_ident()

    def create(factory: Callable, args: tuple, kwargs: dict) -> object:
        if threading.get_ident() == thread:
            return factory(*args, **kwargs | {"disable": True})
        return hook(factory, args, kwargs) if hook else factory(*args, **kwargs)

    return create
