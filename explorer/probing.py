"""The tab Probe: the network perturbed in cells of a visitor's choice."""

import re
from dataclasses import dataclass

import gradio as gr
import numpy as np

from . import gpu, grid, pair, pictures, waiting
from .comparing import IN_BROWSER
from .evidence import asked_for, cost
from .page import LIGHT, NETWORK, NOW, Page
from .session import MadeOf, Session, has_result, needed

CELL = re.compile(r"\s*(\d+)\s*,\s*(\d+)\s*")
SIDE = 480  # pixels, of the longer side of the map
TITLES = ("Unperturbed", "Perturbed")
CHANGED = "How much each pixel changed: bright is much"
PERTURB = "Perturb these cells"
ABLE = "(text) => Array(2).fill({__type__: 'update', interactive: /\\d/.test(text)})"
"""JavaScript: whether buttons that need cells can act."""
TAKE = "Take the cells of the chosen segments"
TAKES = f"""(chosen) => ({{
  __type__: 'update', interactive: chosen.length > 0, value: chosen.length ? '{TAKE}' : '{TAKE} (none chosen)',
}})"""
"""JavaScript: the same of the button that needs chosen segments."""


@dataclass(frozen=True, eq=False)
class Probed:
    """What a probe found, until it is shown."""

    made_of: MadeOf
    value: dict
    """Of a `Pair`."""
    changed: str
    """The map, as HTML."""


def build(page: Page) -> None:
    with gr.Tab("Probe"):
        probed = gr.State(time_to_live=600)  # a `Probed` that is not shown yet; seconds, where its visitor has left
        gr.Markdown(
            "Perturb the network in cells of your choice and see where the picture changes: mostly inside the object "
            "under the cells. EmerDiff is built on this observation."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                cells = grid.Grid(elem_id="grid")
                with gr.Row():
                    brush = gr.Radio([1, 3, 5], value=3, label="Brush (cells)", min_width=150)
                    strength = gr.Slider(-50, 50, 10, step=1, label="Strength (±)", min_width=240, buttons=[])
                text = gr.Textbox(
                    label="Cells (row,column)",
                    info="Drag over the picture, or type them; Enter perturbs them.",
                    placeholder="7,7 7,8 8,7",
                    max_length=3000,
                )
                with gr.Row():
                    perturb = gr.Button(PERTURB, variant="primary", interactive=False)
                    clear = gr.Button("Clear", interactive=False)
                waiting.beside(page)
                of_chosen = gr.Button(f"{TAKE} (none chosen)", size="sm", interactive=False)
            with gr.Column(scale=3, min_width=320):
                changed = gr.HTML(elem_id="changed")
                both = pair.Pair(elem_id="probed")

    def begin(session):
        """With another result, the tab begins with a probe that its run has made: of the cells of a segment."""
        if not has_result(session):
            return {cells: None, text: "", changed: "", both: None, perturb: PERTURB}
        segment = [session.ids[pictures.interesting(session.segmentation)]]
        of_segment = written(session.cells_of(segment))
        return {
            cells: grid.shown(session.found.shown, session.grid, of_segment),
            text: of_segment,
            changed: map_of(session, pictures.change(session, segment), of_the_run(session, segment)),
            both: None,
            perturb: PERTURB + cost(session, 2),
        }

    def cells_of_chosen(session, chosen):
        if not needed(session) or not chosen:
            raise ValueError("choose a segment first: click on one in a picture or in the table")
        return written(session.cells_of(chosen))

    def perturb_cells(session, text, strength):
        """The picture with the chosen cells perturbed, and where it changed."""
        work = gpu.paint(session, offsets(needed(session), text, strength))
        painted = yield from gpu.watched(work, lambda said, _: {page.status: said})
        change = np.linalg.norm(painted[1] - painted[0], axis=-1)
        value = pair.shown(painted[0], painted, TITLES, f"{session.found.name}_probe")
        count = np.count_nonzero(cells_of(text, session.grid))
        said = f"What changed as {count} of the cells were perturbed by {strength:g}"
        yield {page.status: "", probed: Probed(session.made_of, value, map_of(session, change, said))}

    def apply(probed, session):
        """Show it, unless another picture is shown by now."""
        if probed is None or session is None or session.made_of != probed.made_of:
            return gr.skip()  # an empty dict is not taken for outputs
        return {both: probed.value, changed: probed.changed}

    session = {"session": page.session}
    begins = [cells, text, changed, both, perturb]
    page.made_of.change(begin, page.session, begins, trigger_mode="always_last", **LIGHT)
    cells.input(None, cells, text, js=grid.CELLS, **IN_BROWSER)
    look = [text, brush, strength]
    gr.on([part.change for part in look], None, look, None, js=grid.LOOK, **IN_BROWSER)
    text.change(None, text, [perturb, clear], js=ABLE, **IN_BROWSER)
    page.chosen.change(None, page.chosen, of_chosen, js=TAKES, **IN_BROWSER)
    of_chosen.click(cells_of_chosen, None, text, inputs_kwargs=session | {"chosen": page.chosen}, **LIGHT)
    clear.click(None, None, text, js="() => ''", **IN_BROWSER)
    asks = [perturb.click, text.submit]
    gr.on(asks, asked_for, None, page.status, **NOW)
    probing = gr.on(
        asks,
        perturb_cells,
        None,
        [page.status, probed],
        inputs_kwargs=session | {"text": text, "strength": strength},
        **NETWORK,
    )
    probing.success(apply, None, [both, changed], inputs_kwargs=session | {"probed": probed}, **LIGHT)
    page.at_work(probing)


def map_of(session: Session, change: np.ndarray, caption: str) -> str:
    scale = SIDE / max(session.found.shown.size)
    size = [max(1, round(scale * side)) for side in session.found.shown.size]
    return pictures.map_of(change, size, CHANGED, caption)


def of_the_run(session: Session, segment: list[int]) -> str:
    settings, count = session.made_of.settings, np.count_nonzero(session.cells_of(segment))
    by = f"{'± ' * settings.two_sided}{settings.strength:g}"
    return f"What changed as the run perturbed the {count} cells of Segment {segment[0]} by {by}"


def cells_of(text: str, grid: tuple[int, int]) -> np.ndarray:
    """(h, w) bool of "row,column row,column ...", counted from 0."""
    chosen = np.zeros(grid, bool)
    for one in (text or "").replace(";", " ").split():
        if not (cell := cell_of(one, grid)):
            raise ValueError(
                f"write cells as row,column with spaces between them, rows from 0 to {grid[0] - 1} and columns from 0 "
                f"to {grid[1] - 1}: {one!r:.20} is not a cell"
            )
        chosen[cell] = True
    return chosen


def cell_of(text: str, grid: tuple[int, int]) -> tuple[int, int] | None:
    """Row and column; None for what is no cell of the grid (h, w)."""
    found = CELL.fullmatch(text)
    if not found or any(int(n) >= most for n, most in zip(found.groups(), grid, strict=True)):
        return None
    return int(found[1]), int(found[2])


def written(cells: np.ndarray) -> str:
    return " ".join(f"{row},{column}" for row, column in np.argwhere(cells))


def offsets(session: Session, text: str, strength: float) -> np.ndarray:
    """(2, h, w): nothing, and the strength in the cells of `text`; `ValueError` where that has none."""
    if not (cells := cells_of(text, session.grid)).any():
        raise ValueError("choose cells first: drag over the grid, or type them as row,column")
    return np.stack([0 * cells, strength * cells])
