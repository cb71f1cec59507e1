"""Checks every input of every event and endpoint, and turns every error into a sentence.

gradio checks what a component was sent only in part, and shows only its own errors on the page. The page's components
cannot send what is refused here; a program can.
"""

import asyncio
import inspect
import logging
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from urllib.parse import unquote
from weakref import WeakValueDictionary

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.exceptions import InvalidPathError

from . import visitors
from .examples import files_of_examples
from .folders import UPLOADS
from .gpu import told
from .runs import all_sides
from .session import Session
from .sets import SetSession
from .strip import Strip
from .visitors import Visitors

NOT_UPLOADED = (
    "Only files that were uploaded to this page, and its examples, can be opened. Upload the picture and try again."
)
NO_SESSION = (
    "An MCP client has no session here, and so no last result. Call segment_once instead; given `words`, it names the "
    "segments, too."
)
UNEXPECTED = "Something went wrong on the server. Your last result is still there; try again."
UNWRITABLE = "The server cannot write files at the moment. Your last result is still there; try again later."
ADDRESS = "/gradio_api/file="

KEPT = Session | SetSession | None

log = logging.getLogger(__name__)


class Kept(gr.State):
    """The state that stands for a visitor's session: it changes with it, and handlers are given the session itself."""

    is_template = True

    def __init__(self, value: None = None, *, kind: str = "", **options) -> None:
        """A visitor has one session of each `kind`."""
        super().__init__(value, **options)
        self.kind = kind

    def owner(self, visitor: str | None) -> str | None:
        """Under what name `Visitors` has the visitor's session of this kind."""
        return visitor and f"{visitor} {self.kind}" if self.kind else visitor


class Detail(gr.Radio):
    """Sides of which those that suit the model are shown; while it changes, one that suits the last may still come."""

    is_template = True

    def preprocess(self, payload):
        return payload


class Guarded(gr.Blocks):
    """Blocks whose inputs are checked, whose errors are all told, and which keep the sessions of their visitors."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.visitors = Visitors()
        self._changes = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def _turn(self, block_fn: BlockFunction, visitor: str | None) -> AbstractAsyncContextManager:
        """A visitor's changes of the page's state come one after another: each begins with what the last one left.

        Not those of a generator, which would hold up all others while the network works.
        """
        changes = any(block.stateful for block in block_fn.outputs)
        if visitor is None or not changes or inspect.isgeneratorfunction(block_fn.fn):
            return nullcontext()
        return self._turns.setdefault(visitor, asyncio.Lock())

    async def process_api(self, block_fn, *args, request=None, session_hash: str | None = None, **options):
        visitors.key.set(session_hash)
        block_fn = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
        if _is_by_mcp(request) and any(isinstance(block, Kept) for block in (*block_fn.inputs, *block_fn.outputs)):
            raise gr.Error(NO_SESSION, print_exception=False)  # gradio gives all MCP clients one and the same key
        try:
            async with self._turn(block_fn, session_hash):
                return await super().process_api(
                    block_fn, *args, request=request, session_hash=session_hash, **options
                )
        except gr.Error:
            raise
        except Exception as error:
            if isinstance(error, InvalidPathError):
                raise gr.Error(NOT_UPLOADED, print_exception=False) from error
            log.exception("an event failed")
            said = UNWRITABLE if isinstance(error, OSError) else UNEXPECTED
            raise gr.Error(said, print_exception=False) from error

    def validate_inputs(self, block_fn, inputs):
        if len(inputs) < len(block_fn.inputs):
            due = sum(not block.stateful for block in block_fn.inputs)  # states are not for clients to send
            raise gr.Error(f"{due} values are needed, not {len(inputs)}", print_exception=False)

    async def call_function(self, block_fn, inputs, iterator=None, *args, **options):
        with told():
            called = await super().call_function(block_fn, inputs, iterator, *args, **options)
        if iterator is None and called["iterator"] is None and inspect.isgeneratorfunction(block_fn.fn):
            called["prediction"] = gr.skip()  # it has ended without a word; gradio would empty all that it fills
        return called

    async def preprocess_data(self, block_fn, inputs, state, explicit_call=False):
        inputs = [_with_path(value) for value in inputs]
        for block, value in zip(block_fn.inputs, inputs, strict=False):
            if not block.stateful:
                check(state[block._id] if state and block._id in state else block, value)
        ready = await super().preprocess_data(block_fn, inputs, state, explicit_call)
        return [
            self.visitors.get(block.owner(visitors.key.get())) if isinstance(block, Kept) else value
            for block, value in zip(block_fn.inputs, ready, strict=True)
        ]

    async def postprocess_data(self, block_fn, predictions, state):
        data = await super().postprocess_data(block_fn, predictions, state)
        for block in block_fn.outputs:
            if state and isinstance(block, Kept) and isinstance(value := state[block._id], KEPT):
                self.visitors.put(block.owner(visitors.key.get()), value)
                self._changes += 1
                state[block._id] = self._changes
        return data


def check(component: gr.components.Component, value: object) -> None:
    """`gr.Error` for a value that `component` cannot have; None is the handler's to judge but where a number is due."""
    name, said = component.label, "not empty" if value is None else f"not {value!r:.60}"
    match component:
        case gr.Image() | gr.File() | Strip():
            if value is not None and not _is_uploaded(value):
                raise gr.Error(NOT_UPLOADED, print_exception=False)
            return
        case gr.UploadButton():
            if value is not None and not (isinstance(value, list) and all(map(_is_uploaded, value))):
                raise gr.Error(NOT_UPLOADED, print_exception=False)
            return
        case gr.Slider() | gr.Number():
            whole, low, high = component.precision == 0, component.minimum, component.maximum
            number = isinstance(value, int | float) and not isinstance(value, bool)
            ok = number and low <= value <= high and (not whole or value == int(value))  # NaN is in no range
            must = f"be a {'whole ' if whole else ''}number from {low} to {high}"
        case gr.Checkbox():
            ok, must = isinstance(value, bool), "be true or false"
        case gr.Dropdown(multiselect=True):
            ok = value is None or (isinstance(value, list) and all(type(one) is int for one in value))
            must = "be a list of segment numbers"
        case Detail():
            ok, must = value in all_sides(), f"be one of {', '.join(map(str, all_sides()))}"
        case gr.Radio() | gr.Dropdown():
            choices = [choice for _, choice in component.choices]
            ok, must = value in choices, f"be one of {', '.join(map(str, choices))}"
        case gr.Textbox():
            most = component.max_length
            ok = value is None or (isinstance(value, str) and (most is None or len(value) <= most))
            must = "be text" if most is None else f"be text of at most {most} characters"
        case _:
            return
    if not ok:
        raise gr.Error(f"{name} must {must}, {said}.", print_exception=False)


def _is_by_mcp(request: object) -> bool:
    return isinstance(request, gr.Request) and request.headers.get("x-gradio-user") == "mcp"


def _with_path(value: object) -> object:
    """The address of an uploaded file, which MCP clients have, as its path; anything else as it is.

    Nothing is fetched: another server's address becomes a path that is no upload.
    """
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str) or not path.startswith(("http://", "https://")):
        return value
    _, _, file = path.partition(ADDRESS)
    return value | {"path": unquote(file), "url": None}


def _is_uploaded(value: object) -> bool:
    """Whether it is a file that gradio's upload, or the page, has put into gradio's folder, or a file of an example."""
    path = value.get("path") if isinstance(value, dict) else None
    if not isinstance(path, str):
        return False
    try:
        file = Path(path).resolve(strict=True)
        return file.is_file() and (file.is_relative_to(UPLOADS) or file in files_of_examples())
    except (OSError, RuntimeError, ValueError):  # not there, a circle of links, a NUL
        return False

