"""The tab Names: what the segments show, of some words; and finding a word in the picture."""

from html import escape

import gradio as gr
import numpy as np

from emerdiff.naming import LONGEST_WORD, MOST_WORDS

from . import namers, pictures
from .page import LIGHT, Page
from .session import Session, has_result, needed
from .varying import NO_RESULT

LONGEST = 20_000  # characters of words
DIM = 0.2  # of a picture's brightness, where the word that is looked for is not
FAINT = 0.05  # a probability below which nothing is said to show it


def build(page: Page) -> None:
    with gr.Tab("Names"), gr.Row():
        with gr.Column(scale=3, min_width=320):
            words = new_words(lines=3, label="Words", elem_id="words")
            with gr.Row():
                name, merge, forget = buttons = [
                    gr.Button(label, size="sm", min_width=120, interactive=False)
                    for label in ("Name the segments", "Merge by name", "Remove the names")
                ]
            told = gr.HTML(f"<p>{NO_RESULT}</p>", elem_id="names")
        with gr.Column(scale=2, min_width=320):
            word = gr.Textbox(
                label="Find", info="A word: segments light up by how well it fits them.", max_length=LONGEST_WORD
            )
            lit = gr.HTML(elem_id="lit")

    def tell_names(session):
        """The names of what is shown now, and what can be done."""
        there = has_result(session)
        named = there and session.named is not None
        return {
            told: table(session) if named else "" if there else f"<p>{NO_RESULT}</p>",
            name: gr.update(interactive=there),
            merge: gr.update(interactive=there and bool(session.namesakes)),
            forget: gr.update(interactive=named),
        }

    def restore_words(session):
        """With another result, as from a link: its words, if it has any."""
        return session.edits.words if isinstance(session, Session) and session.edits.words else gr.skip()

    def find_word(session, word, words):
        return lights(session, word, words) if has_result(session) and word and word.strip() else ""

    page.session.change(tell_names, page.session, [told, *buttons], trigger_mode="always_last", **LIGHT)
    page.made_of.change(restore_words, page.session, words, **LIGHT)
    looked = {"session": page.session, "word": word, "words": words}
    changes = [page.session.change, word.change]
    gr.on(changes, find_word, None, lit, inputs_kwargs=looked, trigger_mode="always_last", **LIGHT)
    edits = (
        ([name.click, words.submit], lambda session, words: session.ask(words)),
        ([merge.click], lambda session, _: session.merge_namesakes()),
        ([forget.click], lambda session, _: session.ask("")),
    )
    for triggers, change in edits:

        def edit_names(session, words, chosen, view, change=change):
            return page.show(change(needed(session), words), view, chosen)

        known = {"session": page.session, "words": words, "chosen": page.chosen, "view": page.view}
        gr.on(triggers, edit_names, None, page.shows, inputs_kwargs=known, **LIGHT)


def new_words(**options) -> gr.Textbox:
    """A field for words to choose names from."""
    info = f"Between commas; synonyms as sofa|couch. At most {MOST_WORDS:,}."
    return gr.Textbox(str(namers.words()), info=info, max_lines=8, max_length=LONGEST, **options)


def table(session: Session) -> str:
    """The names of the segments and how sure they are, the largest segment first, as HTML."""
    shares = np.bincount(session.segmentation.labels.ravel(), minlength=len(session.ids))
    rows = []
    for n in np.argsort(-shares, kind="stable").tolist():
        i, ranked = session.ids[n], session.named.ranked(n)
        if not ranked:
            continue
        best, second = ranked[:2]
        own = i in session.edits.names
        called = session.name(i) if own else session.named.told(n)
        by = f"you named it; {best.word} fits best" if own else f"{second.word}, {percent(second.probability)}"
        rows.append(
            f"<tr><td>{swatch(session, n)} {escape(called)}</td>"
            f'<td><meter max="1" value="{best.probability:.3f}" aria-label="{escape(best.word)}"></meter> '
            f"{percent(best.probability)}</td><td>{escape(by)}</td></tr>"
        )
    head = "<tr><th>Segment</th><th>Certainty</th><th>Next best</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def percent(probability: float) -> str:
    return f"{probability:.0%}" if probability >= 0.005 else "under 1%"


def swatch(session: Session, n: int) -> str:
    colour = "rgb({},{},{})".format(*session.legend.colours[n].tolist())
    return f'<span style="color:{colour}">■</span>'


def lights(session: Session, word: str, words: str) -> str:
    """The picture as bright as the word fits each segment, and in words where it is, as HTML."""
    fits = session.fits(word, words)  # (segments,)
    best = np.argsort(-fits, kind="stable")[:3]
    found = [
        f"{swatch(session, n)} {escape(session.name(session.ids[n]))} {fits[n]:.0%}" for n in best if fits[n] >= FAINT
    ]
    image = session.found.shown.copy()
    image.thumbnail((pictures.EVIDENCE_SIDE, pictures.EVIDENCE_SIDE))
    pixels = np.asarray(image.convert("RGB"), np.float32)
    light = (DIM + (1 - DIM) * fits / max(fits.max(), FAINT))[session.segmentation.labels_at(image.size)]
    sought = escape(word.strip())
    said = f"{sought} fits {', '.join(found)}" if found else f"Nothing here looks like {sought}."
    drawn = (pixels * light[..., None]).round().astype(np.uint8)
    return pictures.drawing(drawn, "The picture, bright where the word fits", said)
