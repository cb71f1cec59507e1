"""The tab Together: several pictures with one set of segments."""

import json
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import gradio as gr

from emerdiff.batches import Results
from emerdiff.pipeline import MOST_TOGETHER

from . import alike, gpu, pictures, runs, spaces, tray
from .alike import Spot
from .asking import VALUES, AskedTogether, FindingTogether, values_of
from .comparing import IN_BROWSER
from .evidence import asked_for
from .examples import example_of, examples
from .folders import new_folder
from .granularity import AUTOMATIC
from .guard import Kept
from .links import Link
from .naming import new_words
from .page import LIGHT, NETWORK, NOW, Chosen, Page, new_granularity, new_views
from .running import SOON, estimated, why_not
from .seen import seen
from .segments import choosing, editing, of_row
from .session import FINE, Gone, has_result, needed
from .sets import SetSession
from .sharing import address_script, write
from .strip import thumbnail_of
from .tray import Own, Tray
from .viewer import Pane, Viewer, choose_in, shown
from .waiting import beside

FEWEST = 2  # pictures of a set
FEW = "Choose at least two pictures."
GROUP = "together"
VIEWS = ("masks", "pictures", "alike")
SAID = (
    f"Segment up to {MOST_TOGETHER} pictures with one set of segments: the same colour and number is the same kind of "
    "thing in all of them. The picture above comes first; choose others beside it."
)
CLICK = "Click anywhere: bright places are alike to that one, in all pictures."
OWN_PICTURES = "There is no link to this set: a link carries examples only, and there are pictures of your own in it."
K = 12  # segments that a new set begins with


@dataclass(frozen=True)
class Picks:
    """Which pictures a visitor has put together."""

    own: tuple[Own, ...] = ()
    """Tiles beside those of the examples."""
    chosen: tuple[str, ...] = ()
    """Files of pictures, in the order in which they were chosen."""
    is_chosen: bool = False
    """Whether the visitor has chosen any; until then the page's picture is the only one."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The file behind each tile."""
        return (*(str(example.picture) for example in examples()), *(one.source for one in self.own))

    def with_picture_of_page(self, source: str) -> "Picks":
        """As the page shows another picture."""
        picks = self._known(source)
        return picks if picks.is_chosen else replace(picks, chosen=(source,))

    def with_upload(self, source: str) -> "Picks":
        return self._known(source).turned(source, on=True)

    def turned(self, source: str, *, on: bool) -> "Picks":
        """With one more picture, or without it; `ValueError` for more than a set can have."""
        rest = tuple(one for one in self.chosen if one != source)
        if on and len(rest) == MOST_TOGETHER:
            raise ValueError(f"a set can have {MOST_TOGETHER} pictures at most: take one out first")
        return replace(self, chosen=(*rest, source) if on else rest, is_chosen=True)

    def at(self, index: object) -> str:
        """The file behind a tile that a browser names; `ValueError` where there is none."""
        if type(index) is not int or not 0 <= index < len(self.sources):
            raise ValueError(f"there is no such picture: {index!r:.60}")
        return self.sources[index]

    def _known(self, source: str) -> "Picks":
        if source in self.sources:
            return self
        tile = Own(source, Path(source).stem, thumbnail_of(seen(source).shown))
        return replace(self, own=(*self.own, tile))

    @property
    def value(self) -> dict:
        """Of a `Tray`."""
        return tray.shown(self.own, [self.sources.index(source) for source in self.chosen])


def build(page: Page) -> None:
    inputs, status, to_run = page.inputs, page.status, page.to_run_together

    def show(session, view, spot, **before):
        """A set in all that `shows` it; `chosen`, if given, as in `Page.show`."""
        first, there = session.first, [i for i in before.get("chosen") or [] if i in session.ids]
        choices, query = [(first.name(i), i) for i in session.ids], query_of(session)
        stay = there == before.get("chosen")
        return {
            kept: session,
            words: in_words(session),
            viewer: view_of(session, view, spot),
            k: gr.update(value=session.k, maximum=first.found.tree.most),
            grain: first.found.tree.position(session.k),
            table: table_of(session),
            chosen: gr.update(choices=choices, **{} if stay else {"value": there}),
            undo: gr.update(interactive=bool(session.before)),
            result: gr.update(visible=True),
            link_query: query,
            link: gr.update(placeholder="" if query else OWN_PICTURES),
            file: None,
        }

    with gr.Tab("Together", id=GROUP) as tab:
        state, kept, spot = gr.State(Picks()), Kept(None, kind=GROUP), gr.State()  # the last is a `Spot`
        to_apply = gr.State(time_to_live=600)  # a `FindingTogether`; seconds, where its visitor has left
        gr.Markdown(SAID)
        tiles = Tray(examples(), elem_id="tray")
        with gr.Row():
            go = gr.Button("Segment together", variant="primary", interactive=False)
            add = gr.UploadButton("Add your photos", file_count="multiple", file_types=["image", ".heic", ".heif"])
        hint = gr.Markdown()
        beside(page)
        with gr.Column(visible=False) as result:
            words = gr.Markdown()
            viewer = Viewer(elem_id="together")
            view = new_views(VIEWS, "View of the set", "views-together")
            bar = gr.HTML(f"<p>{CLICK}</p>{pictures.colour_bar(1, alike.UNIT)}", visible=False)
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    k = gr.Slider(2, FINE, K, step=1, precision=0, label="Segments of the set", buttons=[])
                    with gr.Row(elem_classes="grain"):
                        grain, automatic = new_granularity("Granularity of the set")
                    table = gr.Dataframe(
                        interactive=False,
                        label="Their share of each picture in % (click a row)",
                        max_height=420,
                        elem_id="segments-together",
                    )
                with gr.Column(scale=2, min_width=320):
                    chosen = Chosen([], value=[], multiselect=True, label="Chosen segments of the set", render=False)
                    undo = gr.Button("Undo", size="sm", min_width=80, interactive=False, render=False)
                    link_query = gr.Textbox(visible=False)
                    link = gr.Textbox(label="Link to the set", interactive=False, render=False)
                    file = gr.File(label="Zip of the set", interactive=False, height=100, render=False)
                    shows = [kept, words, viewer, k, grain, table, chosen, undo, result, link_query, link, file]
                    now = {"view": view, "spot": spot}
                    editing(page, kept, chosen, undo, show, shows, now)
                    words_of_set = new_words(lines=2, label="Words to name the segments by")
                    by_words = gr.Button("Name by words", size="sm")
                    link.render()
                    pack = gr.Button("Make a zip of the set", size="sm")
                    file.render()
                    choosing(kept, chosen, viewer.select)
                    choosing(kept, chosen, table.select, of_row)

    def begin(asked, k, model, preset, picks, **values):
        runs.settings_of(model, preset, values)  # refuses settings that are not allowed
        if len(picks.chosen) < FEWEST:
            raise ValueError(FEW)
        new = AskedTogether(picks.chosen, model, preset, values, k).instead_of(asked)
        if asked and asked.run == new.run:  # what a link says is not lost
            new = replace(new, edits=asked.edits)
        return {to_run: new, status: asked_for()}

    def run(to_run):
        def tell(said, progress):
            place = f"Picture {progress.picture + 1} of {len(to_run.sources)}"
            return {status: said | {"text": f"{place}: {said['text']}"}}

        with closing(gpu.watched(gpu.find_together(to_run), tell)) as work:
            for told in (result := Results(work)):
                if to_run.dropped.is_set():
                    return
                yield told
        yield {status: "", to_apply: FindingTogether(to_run, result.value)}

    def apply(finding, session, view, chosen):
        if finding is None:
            return gr.skip()
        new = SetSession.of(finding.founds, finding.asked.k, session, finding.asked.edits)
        again = session and session.made_of == new.made_of
        return {to_apply: None, spot: None, **show(new, view, None, chosen=chosen if again else None)}

    def able(picks, model, preset, **values):
        """Whether a run can begin, and about how long that takes, or why it cannot."""
        chosen = picks.chosen
        why = why_not(chosen[0], model) if len(chosen) >= FEWEST else FEW
        if why:
            return {go: gr.update(interactive=False), hint: why}
        seconds = len(chosen) * gpu.seconds_of(model, preset, values)
        takes = estimated(model, runs.plan_together(len(chosen), model, preset, values), seconds)
        return {go: gr.update(interactive=True), hint: f"A run of these {len(chosen)} pictures takes {takes}."}

    def picked(picks):
        return {state: picks, tiles: picks.value}

    def pick(picks, event: gr.SelectData):
        try:
            return picked(picks.turned(picks.at(event.index), on=bool(event.value)))
        except ValueError as error:
            gr.Warning(str(error))
            return {tiles: picks.value}  # which takes the tick back

    def upload(picks, files):
        for source in files or []:
            picks = picks.with_upload(source)
        return picked(picks)

    def take_from_page(picks, asked):
        return picked(picks.with_picture_of_page(asked.source)) if asked else gr.skip()

    def open_link(request: gr.Request):
        """The set of a link; its run begins by itself if it does not take long."""
        try:
            opened = Link.parse(dict(request.query_params))
        except ValueError:  # the page has said so
            opened = None
        if opened is None or not opened.together:
            return gr.skip()
        asked = of_link(opened)
        new = Picks(chosen=asked.sources, is_chosen=True)
        begins = {to_run: asked} if is_soon(asked) else {}
        return {**picked(new), k: asked.k, **begins, tab.parent: gr.Tabs(selected=GROUP)}

    def cut(session, k, **now):
        return show(session.cut(k), **now) if has_result(session) else gr.skip()

    def cut_at(session, k, granularity, **now):
        if not has_result(session):
            return gr.skip()
        number, stays = session.first.found.tree.number(granularity), {grain: granularity}
        return stays if number == k else {**show(session.cut(number), **now), **stays}

    def cut_automatically(**known):
        return cut_at(granularity=AUTOMATIC, **known)

    def name_by(session, words, **now):
        return show(needed(session).name_by(words), **now)

    def redraw(session, view, spot):
        shown = {bar: gr.update(visible=view == "alike")}
        return shown | {viewer: view_of(session, view, spot)} if has_result(session) else shown

    def click(session, view, event: gr.SelectData):
        if view != "alike" or not has_result(session):
            return gr.skip()
        place = alike.spot_at(session.founds, event.at)
        return {spot: place, viewer: view_of(session, view, place)}

    latest = {"trigger_mode": "always_last", **LIGHT}
    many = {"trigger_mode": "multiple", **LIGHT}
    own = [state, tiles]
    tiles.select(pick, None, own, inputs_kwargs={"picks": state}, **many)
    add.upload(upload, None, own, inputs_kwargs={"picks": state, "files": add}, **many)
    page.asked.change(take_from_page, None, own, inputs_kwargs={"picks": state, "asked": page.asked}, **LIGHT)
    page.demo.load(open_link, None, [*own, k, to_run, tab.parent], **LIGHT)
    run_inputs = {name: inputs[name] for name in ("model", "preset", *VALUES)}
    changes = [part.change for part in (state, page.made_of, kept, *run_inputs.values())]
    gr.on(changes, able, None, [go, hint], inputs_kwargs={"picks": state, **run_inputs}, **latest)
    asking = {"asked": to_run, "picks": state, "k": k, **run_inputs}
    go.click(begin, None, [to_run, status], inputs_kwargs=asking, **LIGHT)
    running = to_run.change(run, to_run, [status, to_apply], **NETWORK)
    known = {"session": kept, "view": view, "chosen": chosen}
    outputs = [to_apply, spot, *shows]
    running.success(apply, None, outputs, inputs_kwargs={"finding": to_apply, **known}, **LIGHT)
    page.at_work(running)
    moved = {**known, "k": k, "spot": spot}
    k.input(cut, None, shows, inputs_kwargs=moved, **latest)
    grain.input(cut_at, None, shows, inputs_kwargs=moved | {"granularity": grain}, **latest)
    automatic.click(cut_automatically, None, shows, inputs_kwargs=moved, **latest)
    view.input(redraw, None, [viewer, bar], inputs_kwargs={"session": kept, **now}, **latest)
    clicked = {"session": kept, "view": view}
    viewer.select(click, None, [spot, viewer], inputs_kwargs=clicked, trigger_mode="always_last", **NOW)
    chosen.change(None, chosen, None, js=choose_in(GROUP), **IN_BROWSER)
    link_query.change(None, link_query, link, js=address_script(), **IN_BROWSER)
    naming = {**known, "spot": spot, "words": words_of_set}
    gr.on([by_words.click, words_of_set.submit], name_by, None, shows, inputs_kwargs=naming, **LIGHT)
    pack.click(zipped, kept, file, **LIGHT)


# --- What is asked for


def of_link(link: Link) -> AskedTogether:
    """The run that a link's set comes from."""
    files = {example.name: str(example.picture) for example in examples()}
    sources = tuple(files[name] for name in link.set_of_examples)
    values = {name: getattr(link, name) for name in VALUES}
    return AskedTogether(sources, runs.label_of(link.model), link.preset, values, link.k, link.edits)


def is_soon(asked: AskedTogether) -> bool:
    """Whether a run may begin unasked."""
    if spaces or not runs.is_installed(asked.model):
        return False
    seconds = runs.plan_together(len(asked.sources), asked.model, asked.preset, asked.values).seconds
    return seconds is not None and seconds <= SOON


# --- A set as pictures, a table, words, a link and a file


def titles(session: SetSession) -> list[str]:
    """What the pictures are called: examples by their titles, others by their files."""
    named = [(example_of(found.source), found) for found in session.founds]
    return [f"{i} {example.title if example else found.name}" for i, (example, found) in enumerate(named, 1)]


def view_of(session: SetSession, view: str, spot: Spot | None) -> dict:
    """What a viewer shows in a view of `VIEWS`: all pictures; `spot` is the place that they are compared with."""
    if view == "alike":
        panes = alike.panes(session.founds, spot or alike.interesting(session.founds[0]), titles(session))
    else:
        panes = [
            Pane(title, f"{title}, covered by segments", one.found.shown, one.labels, one.legend, one.ids, fill)
            for one, title in zip(session.sessions, titles(session), strict=True)
            for fill in [None if view == "masks" else 0]
        ]
    return shown(panes, "together", group=GROUP)


def table_of(session: SetSession) -> dict:
    """A row for each segment: colour, name, and its share of each picture in per cent."""
    legend = session.first.legend
    rows = [
        [*pictures.first_columns(legend, n, i), *(round(100 * float(share), 1) for share in session.shares[n])]
        for n, i in enumerate(session.ids)
    ]
    columns = titles(session)
    kinds = ["html", "str", *["number"] * len(columns)]
    widths = ["8%", "30%", *[f"{62 // len(columns)}%"] * len(columns)]
    value = {"headers": ["", "name", *columns], "data": rows}
    return gr.update(value=value, datatype=kinds, column_widths=widths)


def in_words(session: SetSession) -> str:
    """How many segments there are, and how many of them in all pictures."""
    there = session.shares > 0
    count, in_all, alone = there.any(1).sum(), there.all(1).sum(), (there.sum(1) == 1).sum()
    took = pictures.duration(session.founds[0].seconds)
    everywhere = "both pictures" if there.shape[1] == 2 else f"all {there.shape[1]} pictures"
    return f"**{pictures.counted(int(count))}** in {took}: {in_all} in {everywhere}, {alone} in one only."


def query_of(session: SetSession) -> str:
    """Of the link to a set of examples; empty for one with other pictures."""
    named = [example_of(found.source) for found in session.founds]
    if not all(named):
        return ""
    made_of, names = session.made_of[0], [example.name for example in named]
    run = {"model": made_of.model, "preset": made_of.preset, **values_of(made_of.settings)}
    link = Link(k=session.k, example=names[0], together=",".join(names), edits=session.edits, **run)
    return link.fitting().query


def zipped(session: SetSession | Gone | None) -> str:
    """The file of a zip with what the zip of each picture has, and `set.json` with what they have in common."""
    needed(session)
    folder = new_folder()
    file, part = folder / "together_emerdiff.zip", folder / "part.zip"
    names = [Path(found.source).name for found in session.founds]
    segments = [
        {"segment": n, "name": name, "shares": [round(float(share), 6) for share in session.shares[n]]}
        for n, name in enumerate(session.first.legend.names)
    ]
    with ZipFile(file, "w") as archive:
        said = json.dumps({"pictures": names, "segments": segments}, ensure_ascii=False, indent=1)
        archive.writestr(ZipInfo("set.json"), f"{said}\n", ZIP_DEFLATED)
        for one in session.sessions:
            write(one, part)
            with ZipFile(part) as own:
                for info in own.infolist():
                    archive.writestr(info, own.read(info))
    part.unlink()
    return str(file)
