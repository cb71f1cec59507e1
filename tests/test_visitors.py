"""Whose results are kept, for how long, and what comes back of those that had to make room."""

from dataclasses import replace
from urllib.parse import parse_qsl

import gradio as gr
import numpy as np
import pytest
from conftest import quick, value_of
from PIL import Image

import app
import emerdiff
from explorer import links, runs, sharing
from explorer.asking import Asked, Finding, Recomputed, values_of
from explorer.opening import of_example
from explorer.runs import MODELS
from explorer.session import Found, Gone, Session
from explorer.visitors import Visitors

K = 4


def result(side: int = 32) -> emerdiff.Segmentation:
    generator = np.random.default_rng(0)
    coarse = generator.permutation(16).reshape(4, 4).astype(np.int32) % K
    responses = generator.random((K, 3, side, side)).astype(np.float16)
    return emerdiff.Segmentation(
        image=np.zeros((side, side, 3), np.uint8), coarse_labels=coarse,
        features=generator.random((4, 4, 5)).astype(np.float32), responses=responses, original_size=(side, side),
        settings=quick(num_segments=K), model="miniature",
    )  # fmt: skip


def session(source: str = "a.png", **changes) -> Session:
    found = Found(source, Image.new("RGB", (32, 32)), result(), "exact", 1.0)
    return Session.of(replace(found, **changes), K)


SIZE = session().nbytes


def test_what_is_kept_is_measured_by_its_arrays_and_pictures():
    kept = session()
    arrays = [value for value in vars(kept.found.segmentation).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) + 32 * 32 * 3 == SIZE
    before = kept.nbytes
    kept.cut(2).labels  # noqa: B018  another session computes them
    assert kept.nbytes == before
    kept.labels  # noqa: B018
    assert kept.nbytes > before


def test_what_all_visitors_share_counts_for_none_of_them_and_stays_shared_when_memory_is_short():
    example = replace(session().found, shared=True)
    visitors = Visitors(budget=1)
    assert Session.of(example, K).nbytes == 0
    for name in "ab":
        visitors.put(name, Session.of(example, K))
    assert visitors.get("a").found is visitors.get("b").found is example


def test_each_visitor_gets_their_own_session_and_others_none():
    visitors, (mine, yours) = Visitors(), (session("a.png"), session("b.png"))
    visitors.put("me", mine)
    visitors.put("you", yours)
    assert visitors.get("me") is mine and visitors.get("you") is yours
    assert visitors.get("somebody") is None and visitors.get(None) is None
    visitors.put(None, mine)  # a call that belongs to no page
    assert visitors.get(None) is None and len(visitors) == 2
    visitors.put("me", None)
    assert visitors.get("me") is None and visitors.get("you") is yours


def test_who_was_away_longest_makes_room_and_thousands_without_a_result_do_not_count():
    visitors = Visitors(budget=3 * SIZE)
    for name in "abc":
        visitors.put(name, session(f"{name}.png"))
    for i in range(5000):
        assert visitors.get(f"failed {i}") is None
    assert isinstance(visitors.get("a"), Session)  # which is a use of it
    visitors.put("d", session("d.png"))
    assert isinstance(visitors.get("b"), Gone)
    assert all(isinstance(visitors.get(name), Session) for name in "acd")


def test_a_result_larger_than_all_memory_is_kept_while_its_visitor_is_the_last():
    visitors = Visitors(budget=1)
    for name in "ab":
        visitors.put(name, session())
        assert isinstance(visitors.get(name), Session)
    assert isinstance(visitors.get("a"), Gone) and len(visitors) == 1


def test_what_only_saves_time_goes_before_any_result_does(small, picture):
    reading = value_of(small.read(picture, quick()))
    assert reading.nbytes > 0
    visitors = Visitors(budget=3 * SIZE + reading.nbytes)
    readings = [replace(reading) for _ in "abc"]
    for name, own in zip("abc", readings, strict=True):
        visitors.put(name, session(reading=own))
    kept = [visitors.get(name) for name in "abc"]
    assert [one.found.reading for one in kept] == [None, None, readings[2]]
    assert all(isinstance(one, Session) for one in kept)


def test_a_result_is_gone_an_hour_after_its_last_use():
    visitors = Visitors(seconds=0.2)
    visitors.put("a", session())
    assert isinstance(visitors.get("a"), Session)
    visitors._here["a"] = visitors._here["a"][0], visitors._here["a"][1] - 0.3
    assert isinstance(visitors.get("a"), Gone) and len(visitors) == 0


def test_the_same_run_brings_names_merges_and_hidden_segments_back():
    edited = session().rename([1], "Sky").merge([2, 3]).hide([0])
    gone = edited.gone()
    back = Session.of(session().found, K, gone)
    assert back.edits == edited.edits and back.legend.names == edited.legend.names
    np.testing.assert_array_equal(back.labels, edited.labels)
    assert Session.of(session().found, 2, gone).name(1) == "Sky"


@pytest.mark.parametrize("other", ["picture", "settings", "quality"])
def test_another_run_begins_without_the_edits_of_the_last(other):
    gone, found = session().rename([1], "Sky").gone(), session().found
    settings = replace(found.segmentation, settings=quick(num_segments=K, strength=3))
    changes = {"picture": {"source": "b.png"}, "settings": {"segmentation": settings}, "quality": {"preset": "fast"}}
    assert Session.of(replace(found, **changes[other]), K, gone).edits == session().edits


# --- What a run has found is found again

MINIATURE, CHECKPOINT, *_ = MODELS
NOISE = [np.random.default_rng(i).integers(0, 256, (64, 70, 3), np.uint8) for i in range(2)]


@pytest.fixture
def file(tmp_path):
    def save(name: str, pixels: np.ndarray = NOISE[0]) -> str:
        Image.fromarray(pixels).save(tmp_path / name)
        return str(tmp_path / name)

    return save


def asked(source: str, **changes) -> Asked:
    return Asked(**{"source": source, "model": MINIATURE, "preset": "exact", "values": {"seed": 1}} | changes)


def finding(asked: Asked, **changes) -> Finding:
    return Finding(asked, replace(session(asked.source).found, **changes))


def test_the_same_run_of_the_same_picture_is_found_again_under_the_name_of_whoever_asks(file):
    visitors, first = Visitors(), finding(asked(file("mine.png")))
    visitors.keep(first)
    again = visitors.again(asked(file("yours.bmp"), values={"seed": 1.0}))
    assert again.segmentation is first.found.segmentation
    assert (again.name, again.seconds, again.shown.size) == ("yours", 0, (512, 468)) and "mine" not in str(again)


@pytest.mark.parametrize(
    "changes", [{"model": CHECKPOINT}, {"preset": "fast"}, {"values": {"seed": 2}}, {"values": {}}], ids=str
)
def test_another_run_is_not_found(file, changes):
    visitors = Visitors()
    visitors.keep(finding(asked(file("a.png"))))
    assert visitors.again(asked(file("a.png"), **changes)) is None
    assert visitors.again(asked(file("b.png", NOISE[1]))) is None
    assert visitors.again(asked(file("c.png", NOISE[0].reshape(70, 64, 3)))) is None  # the same bytes, another picture


def test_what_another_model_found_instead_and_what_is_an_examples_are_not_kept(file):
    visitors, source = Visitors(), file("a.png")
    visitors.keep(finding(stood_in_for := asked(source, model=CHECKPOINT)))
    visitors.keep(finding(example := asked(source), shared=True))
    assert visitors.again(stood_in_for) is None and visitors.again(example) is None


def test_a_full_run_at_one_k_is_found_again_at_that_k(file):
    visitors, mine, yours = Visitors(), session(file("mine.png")), session(file("yours.png"))
    exact = replace(mine.found.segmentation, settings=quick(num_segments=3))
    visitors.keep(Recomputed(mine.made_of, exact))
    assert visitors.exact(replace(yours, k=3)) is exact
    assert visitors.exact(yours) is None and visitors.exact(session(file("b.png", NOISE[1])).cut(3)) is None


def test_results_are_found_for_an_hour_after_their_last_use_and_while_a_visitor_has_them(file):
    visitors, [one, other] = Visitors(), [finding(asked(file(f"{i}.png", NOISE[i]))) for i in range(2)]
    for kept in (one, other):
        visitors.keep(kept)
    visitors.put("a", Session.of(other.found, K))
    for run, (result, used) in visitors._recent.items():
        visitors._recent[run] = result, used - 3601
    left = one.asked
    del one, kept, result
    assert visitors.again(left) is None
    assert visitors.again(other.asked).segmentation is other.found.segmentation


def test_results_that_nobody_looks_at_make_room_before_any_visitor_does(file):
    visitors, sources = Visitors(budget=3 * SIZE), [file(f"{i}.png", NOISE[i]) for i in range(2)]
    visitors.put("a", session("a.png"))
    runs = [asked(source) for source in sources]
    for run in runs:
        visitors.keep(finding(run))
    assert all(visitors.again(run) for run in runs)
    visitors.put("b", session("b.png"))
    visitors.put("c", session("c.png"))
    assert [visitors.again(run) is None for run in runs] == [True, True]
    assert all(isinstance(visitors.get(name), Session) for name in "abc")


def test_what_several_visitors_share_counts_once(file):
    visitors, first = Visitors(budget=2 * SIZE), finding(asked(file("a.png")))
    visitors.keep(first)
    for name in "abcdefgh":
        again = replace(visitors.again(first.asked), shown=first.found.shown)
        visitors.put(name, Session(again, K))
    assert len(visitors) == 8


# --- What the page makes of that: links and reloads


@pytest.fixture(scope="module")
def demo():
    return app.create_demo()


def event(demo, name: str):
    return next(fn.fn for fn in demo.fns.values() if fn.name == name)


def only(kind: type, filled: dict):
    """The one value of a kind that an event fills a component with."""
    [value] = [value for value in filled.values() if isinstance(value, kind)]
    return value


def test_a_reload_and_a_link_find_the_result_of_an_own_picture_again(demo, file, monkeypatch, tmp_path):
    monkeypatch.setattr(links, "FOLDER", tmp_path / "linked")
    settings = runs.settings_of(MINIATURE, "fast", {"num_segments": K, "strength": 3.0, "side": 384})
    run = asked(file("cat.png"), preset="fast", values=values_of(settings))
    found = finding(run, preset="fast", segmentation=replace(result(), settings=settings)).found
    edited = Session.of(found, 3).rename([1], "Sky")

    def address(session):
        return only(str, event(demo, "follow")(session=session, asked=run, k=3))

    def opened(query):
        request = gr.Request(query_params=dict(parse_qsl(query)))
        return event(demo, "restore")(asked=None, view="slider", request=request)

    while_it_runs, then = address(None), address(edited)
    assert not links.FOLDER.exists()  # following writes nothing
    assert only(Asked, {type(value): value for value in opened(then).values()}).edits == edited.edits  # it runs again
    demo.visitors.keep(Finding(run, found))
    for query, edits in ((while_it_runs, Session.of(found, 3).edits), (then, edited.edits)):
        again = only(Session, opened(query))
        assert again.found.segmentation is found.segmentation and again.found.preset == "fast"
        assert (again.k, again.edits, again.found.name) == (3, edits, "cat")
    full = replace(edited.segmentation, settings=replace(settings, num_segments=3))
    demo.visitors.keep(Recomputed(edited.made_of, full))
    assert only(Session, opened(address(edited.recomputed(full)))).is_exact


def test_nothing_can_be_shared_before_there_is_a_result_and_the_page_says_so(demo):
    buttons = [block for block in demo.blocks.values() if getattr(block, "value", "") in ("Make the zip", "Copy link")]
    assert [button.interactive for button in buttons] == [False, False]
    filled = event(demo, "follow")(session=None, asked=None, k=3)
    [why] = [block for block in filled if isinstance(block, gr.Markdown)]
    assert filled[why]["visible"] and why.value == sharing.NOTHING and only(str, filled) == ""
    assert [filled[button]["interactive"] for button in buttons] == [False, False]


def test_a_link_does_not_replace_what_its_visitor_has_opened_meanwhile(demo):
    request = gr.Request(query_params={"model": "miniature", "k": "x"})
    assert event(demo, "restore")(asked=of_example(1), view="slider", request=request) == gr.skip()


def test_what_stays_of_a_shared_picture_is_its_pixels_for_a_day(file, monkeypatch, tmp_path):
    monkeypatch.setattr(links, "FOLDER", tmp_path / "linked")
    settings = runs.settings_of(MINIATURE, "exact", {"num_segments": K})
    mine = session(file("cat.png"), segmentation=replace(result(), settings=settings))
    assert sharing.share(mine, True).startswith("Copied. The picture is kept on this server for 24 hours")
    assert [path.stem for path in links.FOLDER.iterdir()] == [sharing.link_of(mine).picture]
    long = mine
    for i in mine.ids:
        long = long.rename([i], "空" * 80)
    said = sharing.share(long, False)
    assert "The link is selected" in said and said.endswith(sharing.NAMELESS)
    with pytest.raises(ValueError, match="nothing is segmented yet"):
        sharing.share(None, True)
