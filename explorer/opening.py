"""What the page opens with: the row of examples, and links that restore a view."""

from dataclasses import replace

import gradio as gr

from . import links, pictures, runs, uploads
from .asking import VALUES, Asked
from .examples import Example, begun, example_of, examples, own_run, stored, table
from .page import LIGHT, Page, stored_evidence, stored_words
from .session import Edits, Session


def build(page: Page) -> None:
    page.strip.render()

    def choose(asked, view, event: gr.SelectData):
        """An example was clicked."""
        asked, k = of_example(event.index).instead_of(asked), examples()[event.index].k
        return filled(page, asked, k) | opened(page, asked, k, view)

    def restore(asked, view, request: gr.Request):
        """What a link says, or the first example, which the page begins with, where nothing else is asked for yet."""
        if asked:  # something else was quicker
            return gr.skip()
        try:
            if link := links.Link.parse(dict(request.query_params)):
                asked, look = of_link(link), {getattr(page, name): getattr(link, name) for name in links.LOOK}
                return filled(page, asked, link.k) | opened(page, asked, link.k, link.view) | look
        except ValueError as error:
            gr.Warning(f"This link cannot be restored: {error}. Here is an example instead.")
        asked = of_example(0)
        sides = page.filled(asked.values, asked.model)
        return {page.asked: asked, **sides, **opened(page, asked, examples()[0].k, view)}

    outputs = [page.strip, page.asked, page.to_run, page.to_recompute, page.truth, page.k, page.status]
    outputs += [*page.inputs.values(), *page.shows]
    look = [getattr(page, name) for name in links.LOOK]
    now = {"asked": page.asked, "view": page.view}
    page.demo.load(restore, None, [*outputs, *look], inputs_kwargs=now, **LIGHT)
    page.strip.select(choose, None, outputs, inputs_kwargs=now, trigger_mode="multiple", **LIGHT)


def of_example(index: int) -> Asked:
    example = examples()[index]
    return Asked(str(example.picture), *own_run(example), example=index)


def of_link(link: links.Link) -> Asked:
    """What a link asks for; `ValueError` where its picture is gone."""
    values = {name: getattr(link, name) for name in VALUES}
    values["side"] = max(link.side, runs.own_side(runs.label_of(link.model)))
    own = next((of_example(i) for i, e in enumerate(examples()) if e.name == link.example), None)
    source = own.source if own else str(uploads.from_link(links.kept(link.picture), link.name))
    asked = Asked(source, runs.label_of(link.model), link.preset, values)
    if own and (asked.model, asked.preset, asked.values) == (own.model, own.preset, own.values):
        asked = own
    return replace(asked, then_exactly=link.full, edits=Edits() if link.together else link.edits)


def filled(page: Page, asked: Asked, k: int) -> dict:
    """The inputs of what was asked for."""
    example = example_of(asked.source)
    own = {"image": asked.source, "model": asked.model, "preset": asked.preset}
    return {
        page.strip: examples().index(example) if example else None,
        page.asked: asked,
        page.k: k,
        page.truth: str(example.truth) if example and example.truth else None,
        page.status: "",
        **{page.inputs[name]: value for name, value in own.items()},
        **page.filled(asked.values, asked.model),
    }


def opened(page: Page, asked: Asked, k: int, view: str) -> dict:
    """The result if it is ready, also from an earlier run; otherwise what is stored of it, and the run begins.

    An example's does not begin unasked where that takes long.
    """
    visitors, example = page.demo.visitors, None if asked.example is None else examples()[asked.example]
    session = begun(example, k) if example else (found := visitors.again(asked)) and Session.of(found, k)
    if session is None:
        begins = {} if example and not runs.started().quick else {page.to_run: asked}
        return {**page.clear(), **unfinished(page, example, asked.source, view), **begins}
    session, then = replace(session, edits=asked.edits) if asked.edits != Edits() else session, {}
    if asked.then_exactly and (exact := visitors.exact(session)):
        session = session.recomputed(exact)
    elif asked.then_exactly:
        then = {page.to_recompute: object()}
    return {page.k: session.k, **page.show(session, view), **then}


def unfinished(page: Page, example: Example | None, source: str, view: str) -> dict:
    """Words, pictures, evidence and table of the stored result, at the example's own k; or the picture alone."""
    if example:
        words, drawn = stored_words(example), pictures.view_of(stored(example), view)
        return {
            page.words: words,
            page.viewer: drawn,
            page.evidence: stored_evidence(example),
            page.table: table(example),
        }
    return {page.words: "", **page.unsegmented(source)}
