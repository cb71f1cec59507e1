"""The tab Probe: the network perturbed in cells of a visitor's choice."""

import re

import gradio as gr
import numpy as np

from . import gpu, pictures
from .page import LIGHT, NETWORK, Page, picture_output
from .pictures import save
from .session import Session, has_result, needed

CELL = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")


def build(page: Page) -> None:
    with gr.Tab("Probe"):
        gr.Markdown(
            "Push the network in cells of your choice and see where the picture changes: mostly inside the object that "
            "the cells lie on. This is the observation that EmerDiff is built on."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                grid = picture_output("Click cells", "The picture with the low-resolution grid; type cells below")
                with gr.Row():
                    width = gr.Radio([1, 3, 5], value=3, label="Brush (cells)", min_width=150)
                    push = gr.Slider(-50, 50, 10, step=1, label="Push (±)", min_width=180)
                text = gr.Textbox(
                    label="Cells (row,column)", placeholder="7,7 7,8 8,7", lines=2, max_lines=4, max_length=3000
                )
                with gr.Row():
                    of_chosen = gr.Button("Cells of the chosen segments", size="sm")
                    clear = gr.Button("Clear", size="sm")
                perturb = gr.Button("Perturb", variant="primary")
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    before = picture_output("As it is", "The picture painted again without a push")
                    after = picture_output("Changed", "The picture painted again with the push")
                change = picture_output("Where it changed", "How much each pixel changed: bright is much")

    def brush(session, text, width, event: gr.SelectData):
        """A click on the grid: its cells are chosen, or no longer if the one under the pointer was."""
        if not has_result(session):
            return gr.skip()
        chosen = cells_of(text, session.grid)
        row, column = (
            at * count // pixels
            for at, count, pixels in zip(event.index[::-1], session.grid, session.found.shown.size[::-1], strict=True)
        )
        reach = width // 2
        window = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        chosen[window] = not chosen[row, column]
        return written(chosen)

    def draw_grid(session, text, push):
        if not has_result(session):
            return gr.skip()
        marked = pictures.cells(session, cells_of(text, session.grid), -1 if push < 0 else 1)
        return save(marked, f"{session.found.name}_grid")

    def cells_of_chosen(session, chosen):
        if not needed(session) or not chosen:
            raise ValueError("choose a segment first, in the tab Segments")
        return written(session.cells_of(chosen))

    def probe(session, text, push):
        """The picture with the chosen cells pushed, and where it changed."""
        work = gpu.paint(session, offsets(needed(session), text, push))
        painted = yield from gpu.watched(work, lambda said, _: {page.status: said})
        as_it_is, pushed = pictures.save_painted(session, painted, ("as_it_is", "pushed"))
        heat = pictures.heat(np.linalg.norm(painted[1] - painted[0], axis=-1), session.found.shown.size)
        yield {page.status: "", before: as_it_is, after: pushed, change: save(heat, f"{session.found.name}_change")}

    session = {"session": page.session}
    pushed = session | {"text": text, "push": push}
    grid.select(brush, None, text, inputs_kwargs=session | {"text": text, "width": width}, **LIGHT)
    gr.on([text.change, push.change, page.session.change], draw_grid, None, grid, inputs_kwargs=pushed, **LIGHT)
    of_chosen.click(cells_of_chosen, None, text, inputs_kwargs=session | {"chosen": page.chosen}, **LIGHT)
    clear.click(lambda: "", None, text, **LIGHT)
    probing = perturb.click(probe, None, [page.status, before, after, change], inputs_kwargs=pushed, **NETWORK)
    page.work.append(probing)


def cells_of(text: str, grid: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of "row,column row,column ...", counted from 0."""
    chosen = np.zeros(grid, bool)
    for pair in (text or "").replace(";", " ").split():
        if not (found := CELL.fullmatch(pair)) or not all(
            int(n) < most for n, most in zip(found.groups(), grid, strict=True)
        ):
            raise ValueError(
                f"cells are written as row,column with a space between them, rows from 0 to {grid[0] - 1} and columns "
                f"from 0 to {grid[1] - 1}: {pair!r:.20} is not one"
            )
        chosen[int(found[1]), int(found[2])] = True
    return chosen


def written(cells: np.ndarray) -> str:
    return " ".join(f"{row},{column}" for row, column in np.argwhere(cells))


def offsets(session: Session, text: str, push: float) -> np.ndarray:
    """(2, h, w): nothing, and the push in the cells of `text`; `ValueError` where that has none."""
    if not (cells := cells_of(text, session.grid)).any():
        raise ValueError("choose cells first: click on the grid, or write them as row,column")
    return np.stack([0 * cells, push * cells])
