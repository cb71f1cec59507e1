"""The tab Export and share: a zip of everything, and a link that restores what is shown.

The browser's own address follows as the same link, so that a reload shows the same again.
"""

import json
import os
from dataclasses import fields
from pathlib import Path

import gradio as gr

from emerdiff.exporting import export
from emerdiff.filenames import safe_stem
from emerdiff.picture import open_picture

from . import links
from .asking import Asked, values_of
from .comparing import IN_BROWSER
from .examples import example_of
from .folders import KEPT_HOURS, new_folder
from .links import LOOK, Link
from .page import LIGHT, Page
from .runs import MODELS
from .session import Gone, Session, needed

NOTHING = "There is nothing to export or share yet: wait for a result, or press **Run**."
COPIED = "Copied."
REFUSED = "Your browser does not let this page copy. The link is selected: press Ctrl+C, or ⌘C on a Mac."
NAMELESS = "The names of the segments, or the words for them, are too long for a link: it opens without them."

COPY = """async (session) => {
  const link = document.querySelector('#link textarea, #link input');
  try {
    await navigator.clipboard.writeText(link.value);
    return [session, true];
  } catch {  // also where there is no clipboard: on pages without https
    [link.disabled, link.readOnly] = [false, true];  // what is disabled cannot be copied from
    link.focus();
    link.select();
    return [session, false];
  }
}"""
ADDRESS = """(query) => {
  const link = new URL(SPACE || location.origin + location.pathname);
  link.search = query;
  return query && link.href;
}"""
FOLLOW = """(query, ...look) => {
  if (!query) return ['', ''];  // the browser's address stays as it is
  const link = new URL((ADDRESS)(query));
  Object.entries(PLAIN).forEach(([name, usual], i) => look[i] === usual || link.searchParams.set(name, look[i]));
  clearTimeout(window.following);
  window.following = setTimeout(() => {
    const here = new URL(location.href);
    NAMES.forEach((name) => here.searchParams.delete(name));  // what others have put there stays
    link.searchParams.forEach((value, name) => here.searchParams.set(name, value));
    try {
      history.replaceState(history.state, '', here);
    } catch {}  // browsers refuse where it happens too often: the next change comes through
  }, 400);
  return [link.href, ''];
}"""


def build(page: Page) -> None:
    with gr.Tab("Export and share"):
        why = gr.Markdown(NOTHING)
        with gr.Row():
            with gr.Column(min_width=320):
                gr.Markdown(
                    "A zip of the label PNG at the picture's size, an overlay, a transparent cut-out of each segment, "
                    "COCO JSON, labels and confidence as NPZ, and the settings to reproduce it."
                )
                pack = gr.Button("Make the zip", interactive=False)
                file = gr.File(label="Zip", interactive=False, height=100, elem_id="zip")
            with gr.Column(min_width=320):
                gr.Markdown(
                    "A link that opens what is shown: the picture with its settings, *k*, view, names, merges and "
                    "hidden segments."
                )
                copy = gr.Button("Copy link", interactive=False)
                link = gr.Textbox(label="Link", interactive=False, elem_id="link")
                note = gr.Markdown(elem_id="copied")
        query, copied = gr.Textbox(visible=False), gr.Checkbox(visible=False)
    look = [getattr(page, name) for name in LOOK]

    def follow(session, asked, k):
        """The query of what is shown or, while that is on its way, asked for; and whether it can be shared."""
        shown = isinstance(session, Session)
        of = link_of(session) if shown else asked and link_to(asked, k)
        buttons = dict.fromkeys((pack, copy), gr.update(interactive=shown))
        return {query: of.fitting().query if of else "", why: gr.update(visible=not shown), **buttons}

    following = page.session.change(
        follow,
        None,
        [query, why, pack, copy],
        inputs_kwargs={"session": page.session, "asked": page.asked, "k": page.k},
        **LIGHT,
    )
    composed = {"fn": None, "inputs": [query, *look], "outputs": [link, note], "js": _follow(), **IN_BROWSER}
    following.then(**composed)
    gr.on([part.change for part in look], **composed)
    pack.click(zipped, page.session, file, **LIGHT)
    copy.click(share, [page.session, copied], note, js=COPY, **LIGHT)


def _follow() -> str:
    """The script that composes the link and puts it into the browser's address."""
    plain = {f.name: f.default for f in fields(Link) if f.name in LOOK}
    script = FOLLOW.replace("ADDRESS", address_script())
    return script.replace("PLAIN", json.dumps(plain)).replace("NAMES", json.dumps([f.name for f in fields(Link)]))


def address_script() -> str:
    """The script that makes a link of its query."""
    space = os.environ.get("SPACE_ID")  # there the page lies in a frame whose address nobody sees
    return ADDRESS.replace("SPACE", json.dumps(space and f"https://huggingface.co/spaces/{space}"))


def share(session: Session | Gone | None, copied: bool) -> str:
    """Keep the picture of a session's link; what has become of the link, in words."""
    said = link_of(needed(session))
    if said.picture:
        links.keep(open_picture(session.found.source))
    until = f"The picture is kept on this server for {KEPT_HOURS} hours, or until it restarts."
    parts = [COPIED if copied else REFUSED, until if said.picture else "This link does not expire."]
    return " ".join(parts if said == said.fitting() else [*parts, NAMELESS])


def zipped(session: Session) -> str:
    """The file of a session's zip."""
    file = new_folder() / f"{needed(session).found.name}_emerdiff.zip"
    write(session, file)
    return str(file)


def write(session: Session, file: Path) -> None:
    """The zip of a session's picture."""
    found = session.found
    run = {"preset": found.preset, "cut_from": found.segmentation.settings.num_segments}
    picture = open_picture(found.source)
    export(session.segmentation, session.legend, picture, file, run=run, name=Path(found.source).name)


def link_of(session: Session) -> Link:
    """The link to a session, in the page's usual look."""
    made_of = session.made_of
    run = {"model": made_of.model, "preset": made_of.preset, **values_of(made_of.settings)}
    return Link(k=session.k, full=session.is_exact, edits=session.edits, **run, **_picture(made_of.source))


def link_to(asked: Asked, k: int) -> Link:
    """The link to what was asked for, which is not there yet."""
    run = {"model": MODELS[asked.model], "preset": asked.preset, **asked.values}
    return Link(k=k, full=asked.then_exactly, edits=asked.edits, **run, **_picture(asked.source))


def _picture(source: str) -> dict[str, str]:
    if example := example_of(source):
        return {"example": example.name}
    return {"picture": links.key_of(source), "name": safe_stem(Path(source).name)}
