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
            "Perturb the network in cells of your choice and see where the picture changes: mostly inside the object "
            "under the cells. EmerDiff is built on this observation."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                grid = picture_output(
                    "Click cells", "The picture with the grid of coarse cells; click cells, or type them below"
                )
                with gr.Row():
                    width = gr.Radio([1, 3, 5], value=3, label="Brush (cells)", min_width=150)
                    strength = gr.Slider(-50, 50, 10, step=1, label="Strength (±)", min_width=180)
                text = gr.Textbox(
                    label="Cells (row,column)", placeholder="7,7 7,8 8,7", lines=2, max_lines=4, max_length=3000
                )
                with gr.Row():
                    of_chosen = gr.Button("Cells of the chosen segments", size="sm")
                    clear = gr.Button("Clear", size="sm")
                perturb = gr.Button("Perturb", variant="primary")
            with gr.Column(scale=3, min_width=320):
                with gr.Row():
                    before = picture_output("Unperturbed", "The picture painted again, unperturbed")
                    after = picture_output("Perturbed", "The picture painted again, perturbed")
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

    def draw_grid(session, text, strength):
        if not has_result(session):
            return gr.skip()
        marked = pictures.cells(session, cells_of(text, session.grid), -1 if strength < 0 else 1)
        return save(marked, f"{session.found.name}_grid")

    def cells_of_chosen(session, chosen):
        if not needed(session) or not chosen:
            raise ValueError("choose a segment in the tab Segments first")
        return written(session.cells_of(chosen))

    def perturb_cells(session, text, strength):
        """The picture with the chosen cells perturbed, and where it changed."""
        work = gpu.paint(session, offsets(needed(session), text, strength))
        painted = yield from gpu.watched(work, lambda said, _: {page.status: said})
        files = pictures.save_painted(session, painted, ("unperturbed", "perturbed"))
        changed = pictures.heat(np.linalg.norm(painted[1] - painted[0], axis=-1), session.found.shown.size)
        yield {
            page.status: "",
            **dict(zip((before, after), files, strict=True)),
            change: save(changed, f"{session.found.name}_change"),
        }

    session = {"session": page.session}
    offset = session | {"text": text, "strength": strength}
    grid.select(brush, None, text, inputs_kwargs=session | {"text": text, "width": width}, **LIGHT)
    gr.on([text.change, strength.change, page.session.change], draw_grid, None, grid, inputs_kwargs=offset, **LIGHT)
    of_chosen.click(cells_of_chosen, None, text, inputs_kwargs=session | {"chosen": page.chosen}, **LIGHT)
    clear.click(lambda: "", None, text, **LIGHT)
    probing = perturb.click(
        perturb_cells, None, [page.status, before, after, change], inputs_kwargs=offset, **NETWORK
    )
    page.at_work(probing)


def cells_of(text: str, grid: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of "row,column row,column ...", counted from 0."""
    chosen = np.zeros(grid, bool)
    for pair in (text or "").replace(";", " ").split():
        if not (found := CELL.fullmatch(pair)) or not all(
            int(n) < most for n, most in zip(found.groups(), grid, strict=True)
        ):
            raise ValueError(
                f"write cells as row,column with spaces between them, rows from 0 to {grid[0] - 1} and columns from 0 "
                f"to {grid[1] - 1}: {pair!r:.20} is not a cell"
            )
        chosen[int(found[1]), int(found[2])] = True
    return chosen


def written(cells: np.ndarray) -> str:
    return " ".join(f"{row},{column}" for row, column in np.argwhere(cells))


def offsets(session: Session, text: str, strength: float) -> np.ndarray:
    """(2, h, w): nothing, and the strength in the cells of `text`; `ValueError` where that has none."""
    if not (cells := cells_of(text, session.grid)).any():
        raise ValueError("choose cells first: click on the grid, or type them as row,column")
    return np.stack([0 * cells, strength * cells])
