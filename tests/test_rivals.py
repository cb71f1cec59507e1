"""The tab Rivals: what it shows is what the package's functions give, for the picture that is shown."""

import re
import sys
from dataclasses import replace

import gradio as gr
import numpy as np
import pytest
from conftest import value_of
from PIL import Image

from emerdiff.miniature.scenes import draw_scene
from emerdiff.studies.competitors import METHODS
from explorer import comparing, rivals, runs
from explorer.examples import examples
from explorer.guard import Guarded
from explorer.look import LOOK
from explorer.page import LIGHT, new_page
from explorer.rivals import Answer, paired, panes_of, seen
from explorer.session import Found, Session

TITLES = ["EmerDiff", "Naive upsampling", "Joint bilateral", "SLIC", "DiffSeg", "DiffCut"]
ON_THE_MINIATURE = [*("EmerDiff", "bilinear", "joint bilateral", "SLIC"), "DiffSeg 0.12", "DiffCut 0.9"]


@pytest.fixture(scope="module")
def pipe():
    return runs.pipeline("miniature")


@pytest.fixture(scope="module")
def sessions(pipe, tmp_path_factory):
    """Of two pictures of different shapes, 6 segments cut to 4."""
    made = []
    for seed, rows in ((1, 96), (2, 128)):
        file = tmp_path_factory.mktemp("pictures") / f"{seed}.png"
        Image.fromarray(draw_scene(seed, 128).image[:rows]).save(file)
        settings = pipe.settings(preset="preview", num_segments=6, kmeans_n_init=1, image_area=128 * 128)
        result = pipe(file, settings)
        made.append(Session.of(Found(str(file), Image.open(file).convert("RGB"), result, "preview", 1.0), 4))
    return made


@pytest.fixture(scope="module")
def answers(sessions):
    return {name: value_of(work) for name, work in rivals.works(sessions[0])}


@pytest.mark.parametrize("place", range(len(TITLES)))
def test_each_pane_shows_what_the_packages_function_gives(sessions, pipe, answers, place):
    session = sessions[0]
    pane = panes_of(session, answers)[place]
    expected = METHODS[ON_THE_MINIATURE[place]](pipe, session.segmentation)
    assert pane.title == TITLES[place] and len(pane.ids) == len(pane.legend.names)
    if place < 3:  # the numbers are EmerDiff's
        np.testing.assert_array_equal(pane.labels, expected)
        assert pane.ids == session.ids
    else:
        numbers, without_gaps = np.unique(expected, return_inverse=True)
        np.testing.assert_array_equal(pane.labels, without_gaps)
        assert len(set(pane.ids)) == len(numbers)
    assert pane.note.startswith(f"{len(np.unique(expected))} segments · ")


def test_seconds_are_measured_and_those_of_the_coarse_map_count(sessions, answers):
    assert all(answer.seconds > 0 and not answer.refused for answer in answers.values())
    before, after = ({pane.title: pane.note for pane in panes_of(sessions[0], some)} for some in ({}, answers))
    assert re.fullmatch("4 segments · about .+ s, cut from 6", before["EmerDiff"])
    for title in ("Naive upsampling", "Joint bilateral"):
        assert before[title].endswith("s after the coarse map") and "after" not in after[title]
    slow = {"coarse map": replace(answers["coarse map"], seconds=20), "DiffCut": Answer(refused="It cannot.")}
    notes = {pane.title: pane.note for pane in panes_of(sessions[0], slow)}
    assert notes["Naive upsampling"].endswith("· 20 s") and "coarse map" not in notes["SLIC"]
    assert notes["DiffSeg"] == "Not run yet." and notes["DiffCut"] == "It cannot."


def test_a_rival_that_is_not_installed_says_so_and_the_others_are_shown(sessions, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    notes = {pane.title: pane.note for pane in panes_of(sessions[0], {})}
    assert notes.pop("SLIC") == "SLIC needs scikit-image: pip install scikit-image."
    assert len(notes) == 5 and "segments" in notes["Joint bilateral"]


def test_segments_are_paired_with_those_that_they_overlap_most(sessions):
    session = sessions[0].merge([0, 2]).rename([3], "the lawn")
    ours = session.segmentation.labels
    turned = ours.max() - ours  # numbered the other way round
    turned[0, 0] = turned.max() + 1  # and one more
    ids, legend = paired(turned, session, 4)
    assert ids[:-1] == session.ids[::-1] and ids[-1] < 0
    assert legend.names[:-1] == session.legend.names[::-1] and "the lawn" in legend.names
    np.testing.assert_array_equal(legend.colours[:-1], session.legend.colours[::-1])
    assert ids[-1] != paired(turned, session, 5)[0][-1]  # without a pair, it lights up alone
    one = np.zeros_like(ours)
    largest = np.bincount(ours.ravel()).argmax()
    assert paired(one, session, 4)[0] == (session.ids[largest],)


@pytest.mark.parametrize(
    "changes, same",
    [
        ({"strength": 3.0}, True),
        ({"replay_steps": 2}, True),
        ({"feature_timestep": 5}, True),
        ({"seed": 7}, False),
        ({"image_area": 256 * 256}, False),
    ],
)
def test_answers_hold_as_long_as_the_network_sees_the_same(sessions, changes, same):
    made_of = sessions[0].made_of
    assert (seen(made_of) == seen(replace(made_of, settings=replace(made_of.settings, **changes)))) is same
    for name in ("source", "model"):
        assert seen(made_of) != seen(replace(made_of, **{name: "another"}))
    assert seen(made_of) == seen(replace(made_of, preset="exact"))


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def page(browser, sessions):
    with Guarded(analytics_enabled=False) as demo:
        shared = new_page(demo, examples()[0])
        for part in (shared.status, shared.table, shared.chosen, shared.undo):
            part.render()
        which = gr.Radio([("First", 0), ("Second", 1)], value=0, label="Which")
        comparing.build(shared)
        with gr.Tabs():
            with gr.Tab("Another"):
                pass
            rivals.build(shared)

        def load(which, view):
            return shared.show(sessions[which], view)

        gr.on([demo.load, which.input], load, [which, shared.view], [*shared.shows], **LIGHT)
        shared.finish()
    _, address, _ = demo.queue().launch(prevent_thread_lock=True, ssr_mode=False, quiet=True, **LOOK)
    page = browser.new_page(viewport={"width": 1000, "height": 900})
    page.goto(address)
    yield page
    page.close()
    demo.close()


def test_rivals_are_shown_where_they_belong_and_never_beside_another_picture(page):
    def notes() -> list[str]:
        return page.locator("#rivals figure p").all_inner_texts()

    def wait(script: str) -> None:
        notes = "const notes = [...document.querySelectorAll('#rivals figure p')].map((note) => note.textContent)"
        page.wait_for_function(f"() => {{ {notes}; return {script} }}")

    page.locator("#segments").get_by_text("Segment 1", exact=True).first.wait_for(state="attached")
    page.get_by_role("tab", name="Rivals").click()
    wait("notes.length === 6")
    assert notes()[0].startswith("4 segments · ") and notes()[4:] == ["Not run yet."] * 2
    page.get_by_role("button", name="Run the rivals").click()
    page.get_by_role("button", name="Run the rivals again").wait_for(timeout=60_000)
    wait("notes.every((note) => note.includes(' segments · '))")
    page.get_by_label("Second").check()
    wait("notes[4] === 'Not run yet.' && notes[5] === 'Not run yet.'")
    assert page.get_by_role("button", name="Run the rivals again").count() == 0
    page.get_by_label("First").check()
    wait("notes[5].includes(' segments · ')")
    page.locator("#rivals .stage").nth(2).click(position={"x": 5, "y": 5})
    page.wait_for_function("() => window.emerdiff.viewers.chosen[''].length === 1")
