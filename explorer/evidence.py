"""What shows that segments are segments: their cells, what changes with them, and what the network paints of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr
import numpy as np

from . import gpu, pair, pictures, runs, waiting
from .page import LIGHT, NETWORK, NOW, Page
from .running import about
from .session import MadeOf, Session, has_result, needed

PAINT = "Paint it perturbed by − and + the strength"
TITLES = ("I⁻: minus strength", "I⁺: plus strength")


@dataclass(frozen=True, eq=False)
class Painted:
    """What the network painted of segments, until it is shown."""

    made_of: MadeOf
    cells: np.ndarray
    """(h, w) bool, of the segments."""
    value: dict
    """Of a `Pair`."""


def build(page: Page) -> None:
    session, chosen = page.session, page.chosen
    page.evidence.render()
    paint = gr.Button(f"{PAINT} (no result yet)", size="sm", interactive=False)
    waiting.beside(page)
    both = pair.Pair(elem_id="painted")
    painted = gr.State(time_to_live=600)  # a `Painted` that is not shown yet; seconds, where its visitor has left

    def look(session, chosen):
        """What is known of them without the network.

        As the session changes, `Page.show` has the evidence already, though of what was chosen as its event began.
        """
        if not has_result(session):
            return {paint: gr.update(value=f"{PAINT} (no result yet)", interactive=False), both: None}
        evidence = pictures.evidence_of(session, chosen)
        return {page.evidence: evidence, paint: gr.update(value=PAINT + cost(session, 3), interactive=True), both: None}

    def perturb(session, chosen):
        cells = needed(session).cells_of(pictures.examined(session, chosen))
        offsets = session.made_of.settings.strength * np.stack([0 * cells, -1 * cells, 1 * cells])
        unperturbed, *ends = yield from gpu.watched(gpu.paint(session, offsets), lambda said, _: {page.status: said})
        value = pair.shown(unperturbed, ends, TITLES, f"{session.found.name}_perturbed")
        yield {page.status: "", painted: Painted(session.made_of, cells, value)}

    def apply(painted, session, chosen):
        return {both: painted.value} if is_of_now(painted, session, chosen) else {}

    choice = {"session": session, "chosen": chosen}
    changes, outputs = [chosen.change, session.change], [page.evidence, paint, both]
    gr.on(changes, look, None, outputs, inputs_kwargs=choice, trigger_mode="always_last", **LIGHT)
    paint.click(asked_for, None, page.status, **NOW)
    painting = paint.click(perturb, None, [page.status, painted], inputs_kwargs=choice, **NETWORK)
    painting.success(apply, None, both, inputs_kwargs=choice | {"painted": painted}, **LIGHT)
    page.at_work(painting)


def asked_for() -> dict:
    """For the status line: what was asked for has been heard, and waits for its turn."""
    return waiting.said("Waiting for another run …" if gpu.busy() else "Starting …")


def is_of_now(painted: Painted | None, session: Session | None, chosen: Sequence[int]) -> bool:
    """Whether what was painted is of the segments that are looked at by now."""
    if painted is None or session is None or session.made_of != painted.made_of:
        return False
    return np.array_equal(needed(session).cells_of(pictures.examined(session, chosen)), painted.cells)


def cost(session: Session, painted: int) -> str:
    """About how long it takes to paint so many pictures, in brackets; nothing where that is not known."""
    plan = runs.plan_again(session.made_of, session.found.reading, painted=painted)
    return f" ({about(plan)})" if plan.is_known else ""
