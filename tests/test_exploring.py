"""What turns looking into finding: granularity, and what is alike; as functions, and on the page."""

import json
from dataclasses import replace
from urllib.parse import parse_qsl
from zipfile import ZipFile

import gradio as gr
import numpy as np
import pytest
from conftest import at_work, quick, ready, set_slider, value_of
from PIL import Image
from test_accessible import AXE, AXE_SCRIPT, RULES, page_of_first_example
from test_visitors import session

import emerdiff
from emerdiff.alike import cell_at
from emerdiff.imagetext import Map
from explorer import alike, gpu, guard, namers, opening, pictures, runs, together
from explorer.asking import values_of
from explorer.examples import examples
from explorer.granularity import AUTOMATIC, COARSEST, FINEST, STEP, Tree
from explorer.guard import Kept
from explorer.links import Link
from explorer.session import Edits, needed
from explorer.sets import SetSession
from explorer.together import Picks
from explorer.viewer import Place
from explorer.visitors import Visitors

POSITIONS = np.arange(COARSEST, FINEST + STEP, STEP).round(1)


@pytest.fixture(scope="module")
def found():
    """30 segments of 64 cells."""
    one, generator = session().found, np.random.default_rng(0)
    segmentation = replace(
        one.segmentation,
        coarse_labels=(generator.permutation(64).reshape(8, 8) % 30).astype(np.int32),
        features=generator.gamma(1, size=(8, 8, 5)).astype(np.float32),
        responses=generator.random((30, 3, 32, 32)).astype(np.float16),
        settings=replace(one.segmentation.settings, num_segments=30),
    )
    return replace(one, segmentation=segmentation, shown=Image.new("RGB", (160, 160)))


# --- Granularity


@pytest.mark.parametrize("height", [None, 0.5])
def test_a_position_gives_as_many_segments_as_the_package_says(found, height):
    one = replace(found.segmentation, settings=replace(found.segmentation.settings, merge_height=height))
    for fine in ((one,), (one, replace(one, features=one.features[::-1] + 3))):
        tree = Tree.of(*fine)
        numbers = [tree.number(position) for position in POSITIONS]
        assert numbers == [emerdiff.granular(*fine, granularity=2.0**position) for position in POSITIONS]
        assert numbers == sorted(numbers) and 2 <= numbers[0] < numbers[-1] <= tree.most == 30


def test_each_number_has_a_position_that_gives_it_back_as_nearly_as_the_slider_can(found):
    tree = found.tree
    for k in range(2, 31):
        position = tree.position(k)
        assert COARSEST <= position <= FINEST and position in POSITIONS
        assert tree.number(position - STEP) <= k <= tree.number(position + STEP) or position in (COARSEST, FINEST)
    assert tree.position(tree.number(AUTOMATIC)) == pytest.approx(AUTOMATIC, abs=0.5)


# --- What is alike


def test_a_click_is_at_the_cell_of_the_pixels_own_segment(found):
    for x, y in ((0.01, 0.01), (0.5, 0.3), (0.99, 0.99)):
        at = int(y * 160), int(x * 160)
        expected = cell_at(found.labels, found.segmentation.coarse_labels, *at)
        assert alike.spot_at([found, found], [1, x, y]) == (1, *expected)


@pytest.mark.parametrize(
    "sent", [None, 3, [0], [2, 0.5, 0.5], [-1, 0.5, 0.5], [0, 1.0, 0], [0, 0, float("nan")], [0.0, 0, 0], [True, 0, 0]]
)
def test_what_is_no_place_of_the_viewer_is_refused(sent):
    with pytest.raises(ValueError, match="a place must be a pane from 0 to 1 and two shares from 0 to 1"):
        Place.of(sent, 2)


@pytest.mark.parametrize("text", ["", "1", "8,0", "0,8", "1,2,3", "a,b", "-1,0", None])
def test_what_is_no_cell_is_refused_and_what_is_one_is_read(text):
    with pytest.raises(ValueError, match="a row from 0 to 7 and a column from 0 to 7"):
        alike.cell_of(text, (8, 8))
    assert alike.cell_of(alike.written((0, 7, 0)), (8, 8)) == (7, 0)


def test_the_map_has_the_edges_of_the_masks_and_the_brightest_place_under_the_mark(found):
    spot = alike.interesting(found)
    assert found.segmentation.coarse_labels[spot[1:]] == pictures.interesting(found.segmentation)
    (pane,) = alike.panes([found], spot, ["title"])
    marked = np.asarray(pane.picture).astype(int)
    other = alike.panes([found, found], spot, "ab")[1]  # where the mark is not
    heat = np.asarray(other.picture).astype(int).sum(-1)
    own = found.labels == found.segmentation.coarse_labels[spot[1:]]
    assert heat[own].mean() > heat[~own].mean() and (marked != np.asarray(other.picture)).any()


def test_a_ring_marks_the_place_and_leaves_the_rest_of_the_picture(found):
    large = Image.new("RGB", (800, 400), (90, 120, 90))
    changed = (np.asarray(alike.marked(large, found, (0, 2, 5))) != np.asarray(large)).any(-1)
    rows, columns = np.nonzero(changed)
    assert abs(rows.mean() - 125) < 1 and abs(columns.mean() - 550) < 1 and np.ptp(rows) < 60
    assert not changed[125, 550]  # what is marked stays to be seen


# --- Several pictures


@pytest.fixture(scope="module")
def pair_of(found, tmp_path_factory):
    """Two pictures of one set; each lacks some of its segments."""
    first = replace(found.segmentation, original_size=(64, 64))
    coarse, responses = first.coarse_labels[::-1].copy(), first.responses[::-1].copy()
    coarse[coarse > 20] = 3
    responses[np.setdiff1d(np.arange(30), coarse)] = 0
    second = replace(first, coarse_labels=coarse, responses=responses, features=first.features[::-1].copy())
    folder, tree = tmp_path_factory.mktemp("pictures"), Tree.of(first, second)
    for name in "ab":
        Image.effect_noise(first.original_size, ord(name)).save(folder / f"{name}.png")
    founds = [replace(found, source=str(folder / f"{name}.png"), segmentation=one, set_tree=tree)
              for name, one in zip("ab", (first, second), strict=True)]  # fmt: skip
    return SetSession.of(founds, 12)


def test_all_pictures_of_a_set_are_cut_and_edited_alike(pair_of):
    cuts = emerdiff.cuts(*(one.segmentation for one in pair_of.founds))
    for k in (2, 12, 30):
        cut = pair_of.cut(k)
        assert cut.ids == tuple(range(k)) and len(cut.shares) == k
        np.testing.assert_allclose(cut.shares.sum(0), 1)
        for one in cut.sessions:
            expected = emerdiff.merge(one.found.segmentation, cuts[k]).coarse_labels
            np.testing.assert_array_equal(one.segmentation.coarse_labels, expected)
    edited = pair_of.rename([4], "Sky").merge([4, 7]).hide([2])
    first, second = edited.sessions
    assert first.legend.names == second.legend.names and first.name(4) == "Sky" and 7 not in edited.ids
    np.testing.assert_array_equal(first.legend.colours, second.legend.colours)
    assert first.legend.hidden == second.legend.hidden == {2}
    assert edited.undo().undo().undo().edits == pair_of.edits


def test_a_sets_segments_are_named_by_what_they_show_in_all_pictures_and_a_visitors_name_stays(pair_of, monkeypatch):
    scores = np.zeros((1, 2, 3), np.float32)  # the left half of each picture shows sky, the right half perhaps a car
    scores[0, 0, 0], scores[0, 1, 1] = 8, 0.1
    monkeypatch.setattr(namers, "_model", lambda: Map("known", scores, ("sky", "car", "boat")))
    named = pair_of.rename([0], "Mine").name_by("sky, car, boat")
    left = sum(
        np.bincount(one.segmentation.labels[:, : one.segmentation.labels.shape[1] // 2].ravel(), minlength=12)
        for one in pair_of.sessions
    )
    whole = sum(np.bincount(one.segmentation.labels.ravel(), minlength=12) for one in pair_of.sessions)
    share = left / np.maximum(whole, 1)
    sky = np.exp(8 * share)
    sure = (whole > 0) & (sky / (sky + np.exp(0.1 * (1 - share)) + 1) >= 0.5)
    for one in named.sessions:
        assert one.name(0) == "Mine"
        assert [one.name(i) == "sky" for i in range(1, 12)] == sure[1:].tolist()
    assert named.undo().edits.names == {0: "Mine"}
    with pytest.raises(ValueError, match="try others"):
        named.name_by("sky, car, boat")  # the others are unsure still
    with pytest.raises(ValueError, match="at least two words"):
        pair_of.name_by("sky")


def test_a_set_that_made_room_comes_back_with_its_edits_and_another_without(pair_of):
    edited = pair_of.rename([4], "Sky")
    visitors = Visitors(budget=1)
    visitors.put("me together", edited)
    visitors.put("you together", pair_of)
    gone = visitors.get("me together")
    with pytest.raises(ValueError, match="Press Segment together"):
        needed(gone)
    assert SetSession.of(pair_of.founds, 5, gone).edits == edited.edits
    assert SetSession.of(pair_of.founds[::-1], 5, gone).edits == Edits()


def test_each_visitor_has_one_session_of_each_kind():
    one, of_set = Kept(None), Kept(None, kind="together")
    owners = {kept.owner(visitor) for kept in (one, of_set) for visitor in ("a", "b")}
    assert len(owners) == 4 and one.owner("a") == "a" and of_set.owner(None) is None


def test_the_pages_picture_is_the_first_until_others_are_chosen():
    files = [str(example.picture) for example in examples()]
    picks = Picks().with_picture_of_page(files[0]).with_picture_of_page(files[1])
    assert picks.chosen == (files[1],)
    picks = picks.turned(files[3], on=True).with_picture_of_page(files[0])
    assert picks.chosen == (files[1], files[3]) and picks.value["on"] == [1, 3]
    assert picks.turned(files[1], on=False).chosen == (files[3],)
    assert picks.turned(files[3], on=True).chosen == picks.chosen


def test_an_upload_gets_a_tile_once(tmp_path, picture):
    picture.save(file := tmp_path / "sea & <b>.png")
    picks = Picks().with_picture_of_page(str(file)).with_upload(str(file))
    assert picks.chosen == (str(file),) and [one.title for one in picks.own] == ["sea & <b>"]
    assert picks.at(len(examples())) == str(file)


@pytest.mark.parametrize("index", [-1, len(examples()), "0", None, True, 0.0])
def test_what_is_no_tile_is_refused(index):
    with pytest.raises(ValueError, match="there is no such picture"):
        Picks().at(index)


@pytest.mark.parametrize("sent", ["/etc/passwd", {"path": "/etc/passwd"}, [{"path": "/etc/passwd"}], [None], {}])
def test_only_uploads_and_examples_can_be_added(sent):
    with pytest.raises(gr.Error, match="Only files that were uploaded"):
        guard.check(gr.UploadButton(file_count="multiple"), sent)
    guard.check(gr.UploadButton(file_count="multiple"), [{"path": str(examples()[0].picture)}])


def test_a_set_has_eight_pictures_at_most():
    picks = Picks()
    for example in examples()[:8]:
        picks = picks.turned(str(example.picture), on=True)
    with pytest.raises(ValueError, match="at most: take one out first"):
        picks.turned(str(examples()[8].picture), on=True)


def test_the_link_to_a_set_comes_back_and_sets_with_other_pictures_have_none(pair_of):
    assert together.query_of(pair_of) == ""
    files = [str(example.picture) for example in examples()[:2]]
    made = replace(pair_of.founds[0].segmentation.settings, image_area=256**2)
    founds = [replace(one, source=file, segmentation=replace(one.segmentation, settings=made))
              for one, file in zip(pair_of.founds, files, strict=True)]  # fmt: skip
    linked = SetSession.of(founds, 9).rename([4], "Sky")
    link = Link.parse(dict(parse_qsl(together.query_of(linked))))
    asked = together.of_link(link)
    assert (asked.sources, asked.k, asked.edits) == (tuple(files), 9, linked.edits)
    assert opening.of_link(link).edits == Edits()  # they are the set's


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("", "no example ''"), ("{0}", "2 to 8 different"), ("{0},{0}", "2 to 8 different"), ("{1},{0}", "own one"),
        ("{0},nothing", "no example 'nothing'"), ("{0},../{1}", "no example"), (",".join(["{0}"] * 9), "2 to 8"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_examples_is_refused(names, said):
    first, second = (example.name for example in examples()[:2])
    values = values_of(examples()[0].settings)
    with pytest.raises(ValueError, match=said):
        Link(model="miniature", k=5, example=first, together=names.format(first, second), **values)


def test_a_set_takes_as_long_as_its_pictures(monkeypatch):
    pace = runs.Pace(2.0, 5.0, 3.0)
    model, values = next(iter(runs.MODELS)), values_of(runs.defaults(next(iter(runs.MODELS))))
    monkeypatch.setattr(runs, "_paces", {("miniature", "exact", values["side"] ** 2): pace})
    one, three = runs.plan("Miniature", "exact", values), runs.plan_together(3, model, "exact", values)
    assert (three.rows, three.seconds) == (3 * one.rows, 3 * one.seconds)


def test_the_page_finds_what_the_package_finds(small, picture, tmp_path, monkeypatch):
    monkeypatch.setitem(runs._pipelines, runs.MINIATURE, small)
    files = [str(tmp_path / f"{n}.png") for n in range(2)]
    for file, turned in zip(files, (picture, picture.rotate(90, expand=True)), strict=True):
        turned.save(file)
    monkeypatch.setattr(runs, "settings_of", lambda *_: quick())
    founds = value_of(runs.find_together(files, next(iter(runs.MODELS)), "exact", {}, name=runs.MINIATURE))
    for one, expected in zip(founds, small.segment_together(files, quick()), strict=True):
        np.testing.assert_array_equal(one.segmentation.labels, expected.labels)
        assert one.tree is founds[0].set_tree and one.seconds > 0


def test_the_zip_of_a_set_has_what_the_zips_of_its_pictures_have(pair_of):
    with ZipFile(together.zipped(pair_of)) as archive:
        names = archive.namelist()
        said = json.loads(archive.read("set.json"))
    assert len(names) == len(set(names)) and sum(name.endswith("_labels.png") for name in names) == 2
    assert said["pictures"] == ["a.png", "b.png"] and len(said["segments"]) == 12
    np.testing.assert_allclose(np.sum([one["shares"] for one in said["segments"]], axis=0), 1, atol=1e-4)


# --- On the page


@pytest.fixture(scope="module")
def url():
    with page_of_first_example() as served:
        yield served.url


@pytest.fixture(scope="module")
def page(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    ready(page)
    yield page
    page.close()


def number(page, label: str):
    return page.get_by_label(f"number input for {label}")


def waits(page, label: str, is_so: str) -> None:
    """Until `is_so` of a slider's number."""
    box = f"[aria-label='number input for {label}']"
    page.wait_for_function(f"() => {{ const v = +document.querySelector(\"{box}\").value; return {is_so} }}")


def test_granularity_and_k_follow_each_other_and_auto_lets_the_picture_decide(page):
    set_slider(page, "Granularity", FINEST)
    waits(page, "Segments (k)", "v == 30")
    set_slider(page, "Granularity", COARSEST)
    waits(page, "Segments (k)", "v < 6")
    assert float(number(page, "Granularity").input_value()) == COARSEST  # it stays where it was put
    set_slider(page, "Segments (k)", 29)
    waits(page, "Granularity", "v > 0")
    page.get_by_role("button", name="Auto", exact=True).click()
    waits(page, "Granularity", "v == 0")
    waits(page, "Segments (k)", "v > 5 && v < 29")
    page.wait_for_function(f"() => location.search.includes('k=' + {number(page, 'Segments (k)').input_value()})")


def test_a_click_and_a_typed_cell_show_what_is_alike(page):
    page.get_by_role("tab", name="Alike").click()
    heat, cell = page.locator("#alike img").last, page.get_by_label("Cell (row,column)")
    heat.wait_for()
    for act in (
        lambda: page.locator("#alike .stage").last.click(position={"x": 9, "y": 9}),
        lambda: (cell.fill("15,15"), cell.press("Enter")),
    ):
        before = heat.get_attribute("src")
        act()
        page.wait_for_function("src => [...document.querySelectorAll('#alike img')].at(-1).src != src", arg=before)
    assert cell.input_value() == "15,15"


def test_pictures_are_segmented_together_and_a_segment_is_chosen_named_and_cut_in_all(page):
    page.get_by_role("tab", name="Together").click()
    tray = page.locator("#tray")
    assert tray.get_by_role("checkbox", checked=True).count() == 1  # what the page shows
    tray.get_by_label(examples()[1].title).check()
    page.get_by_role("button", name="Segment together", disabled=False).click()
    page.locator("#together canvas").nth(1).wait_for(timeout=120_000)
    page.get_by_text("in both pictures").wait_for()
    table = page.locator("#segments-together")
    table.get_by_text("Segment 1", exact=True).filter(visible=True).first.click()
    chips = page.locator("#together .chip")
    page.wait_for_function("() => document.querySelectorAll('#together .chip:not([hidden])').length === 2")
    assert all(text.startswith("Segment 1 ·") for text in chips.all_inner_texts())
    assert page.locator("#viewer .chip").is_hidden()  # the page's own picture has segments of its own
    name = page.get_by_label("Name", exact=True).filter(visible=True)
    name.fill("Sky")
    name.press("Enter")
    table.get_by_text("Sky", exact=True).filter(visible=True).first.wait_for()
    set_slider(page, "Segments of the set", 5)
    page.get_by_text("5 segments").last.wait_for()
    page.wait_for_function("() => document.querySelectorAll('#together .chip')[1].innerText.startsWith('Sky')")
    assert "together=" in page.get_by_label("Link to the set").input_value()
    page.evaluate(AXE_SCRIPT)
    assert not page.evaluate(AXE, RULES)
    page.locator("#views-together").get_by_text("Alike").click()
    heat = page.locator("#together img").last
    page.get_by_alt_text("How alike each place").last.wait_for()
    before = heat.get_attribute("src")
    page.locator("#together .stage").first.click(position={"x": 9, "y": 9})
    page.wait_for_function("src => [...document.querySelectorAll('#together img')].at(-1).src != src", arg=before)


def test_a_link_to_a_set_opens_its_tab_with_the_pictures_chosen_and_asking_again_is_asking_anew(
    browser, url, page, monkeypatch
):
    runs_of_sets, find = {"begun": 0, "ended": 0}, gpu.find_together

    def counted(asked):
        runs_of_sets["begun"] += 1
        founds = yield from find(asked)
        runs_of_sets["ended"] += 1
        return founds

    monkeypatch.setattr(gpu, "find_together", counted)
    link = page.get_by_label("Link to the set").input_value()
    other = browser.new_page(viewport={"width": 390, "height": 800})
    other.goto(link)
    at_work(other).wait_for()
    other.get_by_role("button", name="Segment together").click()  # while the link's run goes on
    other.locator("#tray").get_by_role("checkbox", checked=True).nth(1).wait_for()
    assert other.locator("#tray").get_by_role("checkbox", checked=True).count() == 2
    other.locator("#together canvas").nth(1).wait_for(timeout=120_000)
    other.locator("#segments-together").get_by_text("Sky", exact=True).filter(visible=True).first.wait_for()
    assert other.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert runs_of_sets == {"begun": 2, "ended": 1}
    other.close()
