"""What is behind the page, without it: sessions, links, pictures and runs."""

import io
import os
import re
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import permutations
from shutil import copy, copytree
from threading import Barrier, Event
from types import SimpleNamespace
from urllib.parse import parse_qsl, urlencode

import matplotlib
import numpy as np
import pytest
from conftest import quick, value_of
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

import emerdiff
from emerdiff.drawing import boundaries, palette
from emerdiff.loading import MINIATURE
from emerdiff.masks import upsample_nearest
from emerdiff.miniature import CLIP
from emerdiff.settings import PRESETS
from explorer import evidence, gpu, links, namers, pair, pictures, probing, runs
from explorer.asking import Asked, Finding, Recomputed, applied, values_of
from explorer.code import code
from explorer.examples import examples
from explorer.help import HELP
from explorer.links import Link
from explorer.pictures import VIEWS
from explorer.seen import key_of_pixels, seen
from explorer.session import FINE, Edits, Found, Session

K, GRID, SIZE, SHOWN, ORIGINAL = 8, (4, 6), (48, 72), (144, 96), (90, 60)  # GRID and SIZE are (height, width)
SCALE = SIZE[0] // GRID[0]


def segmentation(coarse: np.ndarray, responses: np.ndarray, **changes) -> emerdiff.Segmentation:
    """As from a run that found these cells and responses."""
    generator, k = np.random.default_rng(1), len(responses)
    centres = generator.normal(size=(k, 5)).cumsum(0)
    values = {
        "image": generator.integers(0, 256, (*SIZE, 3), np.uint8),
        "coarse_labels": coarse.astype(np.int32),
        "features": (centres[coarse] + 0.1 * generator.normal(size=(*coarse.shape, 5))).astype(np.float32),
        "responses": responses,
        "original_size": ORIGINAL,
        "settings": quick(num_segments=k),
        "model": "miniature",
    }
    return emerdiff.Segmentation(**values | changes)


@pytest.fixture(scope="module")
def fine():
    """Segments that answer mostly where their cells are, and a little elsewhere."""
    generator = np.random.default_rng(0)
    coarse = generator.permutation(np.arange(GRID[0] * GRID[1]) % K).reshape(GRID)
    inside = upsample_nearest(coarse, SIZE) == np.arange(K)[:, None, None]
    noise = gaussian_filter(generator.normal(size=(K, *SIZE)), (0, 3, 3))
    strengths = gaussian_filter(inside.astype(float), (0, 4, 4)) + noise
    colours = generator.uniform(0.2, 1, (K, 3, 1, 1))  # of one sign: unions do not cancel
    return segmentation(coarse, (colours * strengths[:, None]).astype(np.float16))


@pytest.fixture(scope="module")
def found(fine):
    return Found("picture.png", Image.fromarray(fine.image).resize(SHOWN), fine, "exact", 1.5)


@pytest.fixture
def session(found):
    return Session(found, K)


def state(session: Session) -> tuple:
    """All that a visitor sees of a session, and what Undo would bring back."""
    shown = session.labels.tobytes(), session.naive_labels.tobytes(), session.legend.colours.tobytes()
    return session.k, session.edits, session.before, session.ids, session.legend.names, session.legend.hidden, shown


def same(ours: emerdiff.Segmentation, theirs: emerdiff.Segmentation) -> None:
    for name in ("labels", "coarse_labels", "naive_labels", "responses", "differences", "confidence"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)
    assert ours.settings == theirs.settings


# --- A session: k


@pytest.mark.parametrize("k", range(2, K + 1))
def test_a_cut_is_the_merged_result_at_the_size_that_is_shown(session, fine, k):
    cut = session.cut(k)
    expected = emerdiff.merge(fine, emerdiff.cuts(fine)[k])
    same(cut.segmentation, expected)
    assert cut.ids == tuple(range(k))
    np.testing.assert_array_equal(cut.labels, expected.labels_at(SHOWN))
    np.testing.assert_array_equal(cut.naive_labels, expected.naive_labels_at(SHOWN))
    assert cut.labels.shape == SHOWN[::-1] and set(np.unique(cut.labels)) == set(range(k))


def test_one_more_segment_is_split_off_and_all_others_keep_number_name_and_colour(session):
    session = session.rename([1], "Sky").hide([0])
    for k in range(2, K):
        fewer, more = session.cut(k), session.cut(k + 1)
        before, after = (
            np.array(cut.ids)[cut.segmentation.coarse_labels] for cut in (fewer, more)
        )  # of cells: pixels are labelled anew
        assert set(after[after != before]) == {k} and len(set(before[after == k])) == 1
        assert more.legend.names[:k] == fewer.legend.names and more.legend.names[k] == f"Segment {k}"
        assert more.legend.hidden == fewer.legend.hidden == {0}
        np.testing.assert_array_equal(more.legend.colours[:k], fewer.legend.colours)
        panes = [pictures.panes(pictures.layers(cut), "coarse map")[0] for cut in (fewer, more)]
        drawn = [pane.legend.colours[pane.labels] for pane in panes]
        np.testing.assert_array_equal(
            (drawn[0] != drawn[1]).any(2), upsample_nearest(after != before, drawn[0].shape[:2])
        )
    assert len({tuple(colour) for colour in session.legend.colours}) == K


@pytest.mark.parametrize("k", [-1, 0, 1, K + 1, FINE])
def test_a_cut_that_the_result_does_not_have_is_refused_and_the_session_stays(session, k):
    before = state(session)
    with pytest.raises(ValueError, match=f"can have 2 to {K} segments, not {k}"):
        session.cut(k)
    assert state(session) == before


def test_a_result_may_have_more_segments_than_the_page_asks_for(fine):
    """The API takes any number, and its result is named, drawn and exported like others."""
    k = FINE + 4
    coarse = np.arange(k * 2).reshape(2, k) % k
    responses = np.random.default_rng(0).random((k, 3, *SIZE)).astype(np.float16)
    many = Found("a.png", Image.new("RGB", SHOWN), segmentation(coarse, responses), "exact", 1)
    legend = Session(many, k).legend
    assert len({tuple(colour) for colour in legend.colours}) == len(set(legend.names)) == k
    np.testing.assert_array_equal(legend.colours[:FINE], palette(FINE))


# --- A session: edits


def test_merged_segments_are_their_union_and_have_the_smallest_of_their_numbers(session, fine):
    merged = session.merge([5, 2])
    groups = emerdiff.cuts(fine)[K].copy()
    groups[groups == 5] = 2
    same(merged.segmentation, emerdiff.merge(fine, groups))
    assert merged.ids == (0, 1, 2, 3, 4, 6, 7)
    np.testing.assert_array_equal(merged.legend.colours, np.delete(session.legend.colours, 5, 0))
    assert merged.legend.names == tuple(f"Segment {i}" for i in merged.ids)
    np.testing.assert_array_equal(merged.labels, merged.segmentation.labels_at(SHOWN))
    again = merged.merge([2, 7]).merge([0, 1])  # what was merged goes along
    groups[groups == 7] = 2
    groups[groups == 1] = 0
    assert again.ids == (0, 2, 3, 4, 6)
    np.testing.assert_array_equal(again.segmentation.coarse_labels, emerdiff.merge(fine, groups).coarse_labels)
    np.testing.assert_allclose(again.segmentation.responses, emerdiff.merge(fine, groups).responses, atol=2e-3)


def test_a_merge_is_left_out_where_k_lacks_its_segments_and_comes_back_with_them(session):
    merged = session.merge([2, 5])
    for k in range(2, 6):
        same(merged.cut(k).segmentation, session.cut(k).segmentation)
    for k in (6, 7):
        cut = merged.cut(k)
        assert cut.ids == (*(i for i in range(k) if i != 5),)
        same(cut.segmentation, session.cut(k).merge([2, 5]).segmentation)
    same(merged.cut(3).cut(K).segmentation, merged.segmentation)
    below = merged.cut(4).merge([3, 0])  # the merge of 2 and 5 waits
    assert below.ids == (0, 1, 2) and below.cut(K).ids == (0, 1, 2, 4, 6, 7)


def test_two_segments_at_least_are_left_also_when_k_moves(session):
    for ids in (range(K), [*range(K), 99]):
        with pytest.raises(ValueError, match="at least two segments must be left"):
            session.merge(ids)
    two = session.merge(range(K - 1))
    assert two.ids == (0, K - 1)
    with pytest.raises(ValueError, match="at least two segments must be left"):
        two.merge(two.ids)
    for k in range(2, K):  # the other segment is not there
        cut = two.cut(k)
        assert len(cut.ids) >= 2
        assert set(np.unique(cut.labels)) == set(range(len(cut.ids)))
    same(two.cut(2).cut(K).segmentation, two.segmentation)


def test_a_merged_segment_keeps_the_name_that_one_of_its_segments_has(session):
    named = session.rename([5], "boat")
    assert named.merge([2, 5]).name(2) == "boat" and named.merge([5, 6]).name(5) == "boat"
    both = named.rename([6], "sail").merge([2, 5, 6])
    assert both.name(2) == "boat" and both.rename([2], "ship").name(2) == "ship"
    assert both.undo().name(2) == "Segment 2" and both.undo().name(6) == "sail"
    assert named.merge([2, 3]).name(2) == "Segment 2"


@pytest.mark.parametrize("ids", [[], [3], [3, 3], [3, 99], [98, 99]])
def test_a_merge_needs_two_segments_that_are_there(session, ids):
    before = state(session)
    with pytest.raises(ValueError, match="at least two"):
        session.merge(ids)
    assert state(session) == before


def test_a_name_stays_when_k_moves(session):
    named = session.rename([5], "  Sky 🌤 ").rename([0], "Grass")
    for k in range(2, K + 1):
        expected = ["Grass", *(f"Segment {i}" for i in range(1, k))]
        if k > 5:
            expected[5] = "Sky 🌤"
        assert named.cut(k).legend.names == tuple(expected)
    assert named.cut(2).cut(K).name(5) == "Sky 🌤" and named.rename([5], "a" * 80).name(5) == "a" * 80


@pytest.mark.parametrize(
    "ids, name, message",
    [
        ([1], "a" * 81, "at most 80 characters"),
        ([1], "nul \0", "without NUL"),
        ([1], "", "type a name for it"),
        ([1], " \n", "type a name for it"),
        ([], "Sky", "choose one segment"),
        ([1, 2], "Sky", "choose one segment"),
        ([99], "Sky", "choose one segment"),
    ],
)
def test_a_name_that_is_not_allowed_is_refused_and_the_session_stays(session, ids, name, message):
    session = session.rename([1], "Tree")
    before = state(session)
    with pytest.raises(ValueError, match=message):
        session.rename(ids, name)
    assert state(session) == before and session.name(1) == "Tree"


def test_hidden_segments_are_not_drawn_but_stay_in_the_labels(session):
    hidden = session.hide([1, 4])
    np.testing.assert_array_equal(hidden.labels, session.labels)
    for view in pictures.VIEWS:
        for pane, plain in zip(
            *(pictures.panes(pictures.layers(s), view) for s in (hidden, session)), strict=True
        ):
            assert pane.legend.hidden == {1, 4} and pane.ids == session.ids  # the viewer draws none of them
            np.testing.assert_array_equal(pane.labels, plain.labels)


def test_hiding_again_shows_and_a_mixed_choice_hides(session):
    hidden = session.hide([1])
    assert hidden.hide([1, 4]).edits.hidden == {1, 4}
    assert state(hidden.hide([1]))[3:] == state(session)[3:]
    assert hidden.hide([1, 4]).hide([4]).edits.hidden == {1}
    assert hidden.merge([0, 1]).legend.hidden == frozenset()  # 0 is to be seen
    assert session.hide([5]).cut(3).legend.hidden == frozenset()
    assert session.hide([5]).cut(3).cut(6).legend.hidden == {5}
    for ids in ([], [99]):
        with pytest.raises(ValueError, match="choose segments"):
            session.hide(ids)


def test_undo_takes_back_one_edit_after_another_and_leaves_k(session):
    steps = [session]
    for act in (
        lambda s: s.rename([2], "Tree"),
        lambda s: s.merge([2, 5]),
        lambda s: s.hide([2, 7]),
        lambda s: s.rename([2], "Wood"),
        lambda s: s.hide([7]),
        lambda s: s.merge([0, 7]),
    ):
        steps.append(act(steps[-1]))
    now = steps[-1]
    for earlier in reversed(steps[:-1]):
        now = now.undo()
        assert state(now) == state(earlier)
    with pytest.raises(ValueError, match="nothing to undo"):
        now.undo()
    moved = steps[2].cut(4).undo()
    assert moved.k == 4 and moved.edits == steps[1].edits


# --- A session: a full run at its k


def test_a_full_runs_segments_are_numbered_as_in_the_cut(session):
    cut = session.cut(5)
    order = np.array([3, 0, 4, 1, 2])
    permuted = emerdiff.merge(cut.segmentation, order)
    assert (permuted.labels != cut.segmentation.labels).mean() > 0.5
    same(cut.recomputed(permuted).segmentation, cut.segmentation)


def test_a_full_runs_numbers_agree_with_the_cut_as_much_as_any_could(session, fine):
    cut = session.cut(4)
    exact = emerdiff.merge(fine, np.array([3, 3, 0, 0, 2, 1, 1, 2]))  # other segments than the cut's
    ours = cut.recomputed(exact)
    reference = cut.segmentation.labels
    best = max((np.array(order)[exact.labels] == reference).sum() for order in permutations(range(4)))
    assert (ours.segmentation.labels == reference).sum() == best < reference.size
    sizes = [np.sort(np.bincount(result.labels.ravel())) for result in (ours.segmentation, exact)]
    np.testing.assert_array_equal(*sizes)  # the partition is the run's


def test_edits_hold_for_a_full_run_which_comes_back_wherever_k_is_that(session, fine):
    edited = session.cut(4).rename([1], "Sky").merge([2, 3])
    exact = emerdiff.merge(fine, np.array([3, 3, 0, 0, 2, 1, 1, 2]))
    full = edited.recomputed(exact)
    assert full.ids == (0, 1, 2) and full.legend.names[1] == "Sky" and full.is_exact
    same(full.undo().segmentation, session.cut(4).recomputed(exact).segmentation)
    same(full.recomputed(exact).segmentation, full.segmentation)
    moved = full.cut(5)
    assert not moved.is_exact
    same(moved.segmentation, edited.cut(5).segmentation)
    same(moved.cut(4).segmentation, full.segmentation)


# --- What was asked for while something else went on


def asked(**changes) -> Asked:
    return Asked(**{"source": "picture.png", "model": "Miniature", "preset": "exact", "values": {}} | changes)


EDITS = (
    lambda s: s.rename([1], "Sky"),
    lambda s: s.merge([0, 3]),
    lambda s: s.hide([2]),
    lambda s: s.cut(6),
    lambda s: s.cut(5).rename([2], "Tree").merge([1, 2]).undo(),
)


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_done_while_a_full_run_went_on_is_kept(session, fine, edit):
    begun = session.cut(4)
    exact = Recomputed(begun.made_of, emerdiff.merge(fine, np.array([3, 3, 0, 0, 2, 1, 1, 2])))
    now = edit(begun)
    after = applied(exact, now, None, now.k)
    assert (after.k, after.edits, after.before) == (now.k, now.edits, now.before)
    assert after.is_exact == (now.k == 4)
    same(after.cut(4).segmentation, edit(begun.recomputed(exact.exact)).cut(4).segmentation)
    if now.k != 4:
        same(after.segmentation, now.segmentation)


def test_a_full_run_of_what_is_no_longer_shown_changes_nothing(session, found, fine):
    exact = Recomputed(session.made_of, fine)
    for other in (None, Session(replace(found, source="b.png"), K), Session(replace(found, preset="fast"), K)):
        assert applied(exact, other, asked(), K) is None
    with pytest.raises(ValueError, match="was removed"):
        applied(exact, session.gone(), None, K)


def test_a_run_is_applied_with_the_k_of_now_and_only_for_who_still_waits_for_it(session, found):
    first, second = asked(), asked()
    other = replace(found, source="b.png")
    for before in (None, session, session.rename([1], "Sky"), session.gone()):
        assert applied(Finding(first, other), before, second, 5) is None
        after = applied(Finding(second, other), before, second, 5)
        assert after.k == 5 and after.found is other and after.edits == Session(other, 5).edits
    assert applied(Finding(first, other), None, first, FINE).k == K  # as many as there are


def test_the_same_run_again_keeps_the_edits_and_their_undo(session, found):
    edited, again = session.rename([1], "Sky").merge([2, 5]), asked()
    for before in (edited, edited.gone()):
        after = applied(Finding(again, replace(found, seconds=9)), before, again, K)
        assert state(after) == state(edited) and after.found.seconds == 9


# --- Links

VALUES = {
    "model": "miniature",
    "k": 12,
    "modulation_timestep": 281,
    "strength": 10.0,
    "feature_timestep": 301,
    "smoothing": 0.8,
    "seed": 42,
    "example": "house",
}
KEY = "0123456789abcdef" * 2
DONE = Edits((frozenset({2, 5}), frozenset({2, 6})), {1: "Sky"}, frozenset({0, 3}))
ALL = dict(parse_qsl(Link(**VALUES).query))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"k": 2, "full": True, "preset": "fast", "view": "side by side"},
        {"k": FINE, "preset": "preview", "view": "coarse map", "example": "room"},
        {"strength": 0.5, "smoothing": 1.2, "model": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
        {"strength": 0.0, "smoothing": 0.0, "seed": 0, "modulation_timestep": 0, "feature_timestep": 0},
        {"strength": 1 / 3, "smoothing": 0.1 + 0.2, "seed": 2**63 - 1},
        {"example": None, "picture": KEY},
        {"example": "flower"},
        {"opacity": 0.35, "outlines": False},
        {"opacity": 0.0},
        {"edits": DONE},
        {"edits": Edits(hidden=frozenset(range(FINE)))},
        {"edits": Edits(names={0: '</script><b onclick="x">&amp;', 29: "a=b&c=d#%2B+ \\\"'\n", 7: "空 🌳 é"})},
    ],
)
def test_a_link_comes_back_from_its_query(changes):
    link = Link(**VALUES | changes)
    again = Link.parse(dict(parse_qsl(link.query)))
    assert again == link
    assert [type(value) for value in vars(again).values()] == [type(value) for value in vars(link).values()]
    assert re.fullmatch(r"[\w.~/:,%+=&-]*", link.query, re.ASCII)  # so that no program cuts it short


@pytest.mark.parametrize(
    "query, changes",
    [
        ("preset=exact&view=slider&example=house", {}),
        ("preset=fast&view=side+by+side&full=True&example=house", {"preset": "fast", "view": VIEWS[1], "full": True}),
        (f"preset=exact&view=slider&picture={KEY}&name=cat", {"example": None, "picture": KEY, "name": "cat"}),
    ],
)
def test_links_of_earlier_versions_still_open(query, changes):
    old = "model=miniature&k=12&modulation_timestep=281&strength=10.0&feature_timestep=301&smoothing=0.8&seed=42&"
    assert Link.parse(dict(parse_qsl(old + query))) == Link(**VALUES | changes)


def test_a_link_restores_what_was_done_to_the_segments(session, found):
    edited = session.rename([1], "Sky").merge([2, 5]).merge([2, 6]).hide([0])
    again = Link.parse(dict(parse_qsl(Link(**VALUES | {"edits": edited.edits}).query)))
    after = applied(Finding(linked := replace(asked(), edits=again.edits), found), None, linked, K)
    assert state(after)[3:] == state(edited)[3:] and not after.before
    mine = after.rename([3], "Mine")
    assert applied(Finding(linked, found), mine, linked, K).edits == mine.edits  # what came later stays


@pytest.mark.parametrize("length, fits", [(10, True), (80, False)])
def test_names_that_are_too_long_for_an_address_are_left_out_of_it(length, fits):
    edits = Edits((frozenset({2, 3}),), {i: f"{i:02}".ljust(length, "x") for i in range(FINE)}, frozenset({4}))
    link = Link(**VALUES | {"edits": edits})
    fitting = link.fitting()
    assert len(fitting.query) <= links.LONGEST and (fitting == link) == fits
    assert fitting.edits == (edits if fits else replace(edits, names={}))


def test_all_that_can_be_merged_and_hidden_fits_into_an_address():
    pairs = tuple(frozenset({0, i}) for i in range(1, FINE - 1))
    link = Link(**VALUES | {"edits": Edits(pairs, {}, frozenset(range(FINE)))})
    assert len(urlencode(parse_qsl(link.query))) <= links.LONGEST  # also as browsers write it


def test_a_link_is_short_and_says_only_what_it_must():
    query = Link(**VALUES).query
    assert "smoothing=0.8" in query and "strength=10" in query and len(query) < 200
    assert ALL.keys() == VALUES.keys()


@pytest.mark.parametrize("query", [{}, {"utm_source": "x", "__theme": "dark"}])
def test_a_query_with_none_of_the_names_is_no_link(query):
    assert Link.parse(query) is None


def test_other_names_in_a_query_are_passed_over():
    assert Link.parse(ALL | {"__theme": "dark", "__init__": "1", "query": "2"}) == Link(**VALUES)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "../../weights"}, "there is no model"),
        ({"model": "Stable Diffusion 1.5"}, "there is no model"),
        ({"k": "1"}, "k must be from 2 to 30, not 1"),
        ({"k": "31"}, "k must be from 2 to 30, not 31"),
        ({"k": "abc"}, "k must be a number, not 'abc'"),
        ({"k": "2.5"}, "k must be a number"),
        ({"k": ""}, "k must be a number"),
        ({"strength": "nan"}, "strength must be a number from 0 to 1000, not nan"),
        ({"strength": "inf"}, "strength must be a number from 0 to 1000, not inf"),
        ({"smoothing": "-0.1"}, "smoothing must be a number from 0 to 20"),
        ({"seed": "-1"}, "seed must be a whole number from 0"),
        ({"seed": "1e3"}, "seed must be a number"),
        ({"modulation_timestep": "1000"}, "modulation_timestep must be"),
        ({"view": "<script>"}, "there is no view '<script>'"),
        ({"preset": "x"}, "there is no preset 'x'"),
        ({"example": "../house"}, "there is no example"),
        ({"picture": KEY}, "either an example or a picture"),
        ({"example": None}, "either an example or a picture"),
        ({"example": None, "picture": "../../etc/passwd"}, "32 hexadecimal digits"),
        ({"example": None, "picture": KEY + "\n"}, "32 hexadecimal digits"),
        ({"example": None, "picture": KEY + "0"}, "32 hexadecimal digits"),
        ({"example": None, "picture": KEY.upper()}, "32 hexadecimal digits"),
        ({"opacity": "1.01"}, "opacity must be from 0 to 1, not 1.01"),
        ({"opacity": "nan"}, "opacity must be from 0 to 1, not nan"),
        ({"opacity": "x"}, "opacity must be a number, not 'x'"),
        ({"outlines": "1"}, "outlines must be true or false, not '1'"),
        ({"full": "no"}, "full must be true or false, not 'no'"),
        *(
            ({"edits": text}, "edits must be like")
            for text in (
                "", "x", "1", "null", "[]", '"names"', "{", "[" * 1900, "{}x", '{"other":1}', '{"names":["Sky"]}',
                '{"names":{"30":"Sky"}}', '{"names":{"-1":"Sky"}}', '{"names":{"x":"Sky"}}', '{"names":"Sky"}',
                '{"merged":[2,3]}', '{"merged":[[2,30]]}', '{"merged":[["2","3"]]}', '{"merged":[[true,2]]}',
                '{"merged":[[[2],3]]}', '{"merged":{"2":3}}', '{"merged":null}', '{"hidden":[-1]}', '{"hidden":[1.5]}',
                '{"hidden":[NaN]}', '{"hidden":["0"]}', '{"hidden":0}',
            )
        ),
        *(
            ({"edits": f'{{"names":{{"1":{name}}}}}'}, "a segment's name must be text")
            for name in ("1", "null", '["Sky"]', '"\\u0000"', '"\\ud800"', f'"{"x" * 81}"')
        ),
    ],
)
def test_what_the_page_does_not_have_is_refused(changes, message):
    query = {name: value for name, value in (ALL | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        Link.parse(dict(parse_qsl(urlencode(query), keep_blank_values=True)))


REQUIRED = ("model", "k", "modulation_timestep", "strength", "feature_timestep", "smoothing", "seed")


@pytest.mark.parametrize("name", REQUIRED)
def test_what_a_link_lacks_is_named(name):
    with pytest.raises(ValueError, match=f"{name} is missing"):
        Link.parse({key: value for key, value in ALL.items() if key != name})
    if name != "model":
        with pytest.raises(ValueError, match="model is missing"):
            Link.parse({name: ALL[name]})


@pytest.mark.parametrize("digit", ["9", "x", "é", "🌳", "%", "\0"])
@pytest.mark.parametrize("name", [*ALL, "picture", "edits"])
def test_long_values_are_refused_in_a_short_sentence(name, digit):
    for length in (1000, 4000, 10**6):
        with pytest.raises(ValueError) as error:
            Link.parse(ALL | {name: digit * length})
        assert len(str(error.value)) < 200


# --- Code


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "preset, changes", [("exact", {}), ("fast", {"strength": 3.0}), ("preview", {"image_area": 384**2, "seed": 7})]
)
def test_the_code_that_is_shown_asks_for_what_is_shown(fine, found, miniature, monkeypatch, preset, changes, full):
    settings = replace(runs.settings_of(runs.label_of("miniature"), preset, changes), num_segments=K)
    session = Session(replace(found, segmentation=replace(fine, settings=settings), preset=preset), 4)
    result = fine
    if full:  # it numbers the segments otherwise than the cut does
        result = emerdiff.merge(session.segmentation, np.array([2, 0, 3, 1]))
        session = session.recomputed(replace(result, settings=replace(settings, num_segments=4)))
    asked = []

    def pipe(_, settings):
        asked.append(settings)
        return replace(result, settings=settings)

    pipe.settings = miniature.settings
    monkeypatch.setattr(emerdiff, "load", lambda _: pipe)
    session = session.merge(session.ids[1:3])
    exec(code(session), names := {})
    [shown] = asked
    shown = replace(shown, image_area=shown.image_area or miniature.native_side**2)
    assert shown == replace(settings, num_segments=4 if full else K)
    np.testing.assert_array_equal(names["segmentation"].labels, session.segmentation.labels)


@pytest.fixture(scope="module")
def boat():
    """What the page finds in an example's picture, roughly; its file is `picture.jpg` in the folder of the test."""
    label, picture = runs.label_of(MINIATURE), next(e.picture for e in examples() if e.name == "boat")
    values = values_of(runs.defaults(label)) | {"num_segments": 6}
    return Session.of(value_of(gpu.find(Asked(str(picture), label, "preview", values), None)), 4)


@pytest.mark.parametrize("name_model, full", [(MINIATURE, False), (str(CLIP), True)])
def test_the_code_that_is_shown_finds_the_segments_and_names_that_are_shown(
    boat, monkeypatch, tmp_path, name_model, full
):
    monkeypatch.setattr(namers, "WISHED", name_model)
    namers._model.cache_clear()
    monkeypatch.chdir(tmp_path)
    copy(boat.found.source, "picture.jpg")
    session = boat.recomputed(value_of(gpu.recompute(boat))) if full else boat
    session = session.merge(session.ids[:2]).ask("sky|cloud, water , boat\ntree, it's a hill")
    exec(code(session), found := {})
    np.testing.assert_array_equal(found["segmentation"].labels, session.segmentation.labels)
    told = [session.named.told(n) for n in range(len(session.ids))]
    assert [found["names"].told(n) for n in range(len(session.ids))] == told and len(set(told)) > 1
    assert found["model"].model == name_model


# --- Pictures that are kept for links


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(links, "FOLDER", tmp_path / "linked")
    monkeypatch.setattr(links, "_known", {})
    return links.FOLDER


def noise(seed: int, size: tuple[int, int] = (70, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


def age(key: str, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(links.FOLDER / f"{key}.png", (then, then))


def test_a_kept_picture_comes_back_as_it_was_under_a_key_of_its_own(folder):
    images = [noise(0), noise(1), Image.new("RGB", (64, 70)), Image.new("RGB", (70, 64))]
    keys = [links.keep(image) for image in images]
    assert len(set(keys)) == 4 and keys == [links.keep(image.copy()) for image in images]
    assert len(list(folder.iterdir())) == 4 and folder.stat().st_mode & 0o077 == 0
    for key, image in zip(keys, images, strict=True):
        link = Link(**VALUES | {"example": None, "picture": key})
        file = links.kept(Link.parse(dict(parse_qsl(link.query))).picture)
        assert file.parent == folder
        with Image.open(file) as again:
            assert again.mode == "RGB"
            np.testing.assert_array_equal(again, image)


def test_a_picture_that_is_not_there_is_refused(folder):
    for _ in range(2):  # without and with the folder
        with pytest.raises(ValueError, match="kept for 24 hours"):
            links.kept(KEY)
        links.keep(noise(0))


def test_an_upload_is_found_by_its_key_while_it_is_there_and_comes_back_without_what_else_it_tells(folder, tmp_path):
    upload, told = tmp_path / "upload.jpg", Image.Exif()
    told[0x010E] = "taken at home"
    noise(0).save(upload, exif=told)
    key = links.key_of(str(upload))
    assert not folder.exists()  # nothing is written for it
    with Image.open(links.kept(key)) as again:
        assert not again.getexif() and again.format == "PNG"
        assert links.keep(again.convert("RGB")) == key == links.key_of(str(upload))
    links.kept(key).unlink()
    upload.unlink()
    with pytest.raises(ValueError, match="is gone"):
        links.kept(key)


def test_only_the_files_used_last_are_known_by_their_keys(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(links, "MOST_KNOWN", 2)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        noise(i).save(file)
        links.key_of(str(files[0]))
        links.key_of(str(file))
    assert len(links._known) == 2
    for i, known in enumerate((True, False, True)):
        key = key_of_pixels(noise(i))
        assert (links.kept(key).stem == key) if known else pytest.raises(ValueError, links.kept, key)


def test_expired_pictures_are_refused_and_go_when_another_is_kept(folder):
    old, young = links.keep(noise(0)), links.keep(noise(1))
    age(old, links.KEPT_HOURS + 0.1)
    age(young, links.KEPT_HOURS - 0.1)
    with pytest.raises(ValueError, match="is gone"):
        links.kept(old)
    assert links.kept(young).exists()
    new = links.keep(noise(2))
    assert {path.stem for path in folder.iterdir()} == {young, new}


def test_keeping_a_picture_again_makes_it_young_again(folder):
    key = links.keep(noise(0))
    age(key, 2 * links.KEPT_HOURS)
    assert links.keep(noise(0)) == key
    with Image.open(links.kept(key)) as again:
        np.testing.assert_array_equal(again, noise(0))


def test_the_oldest_pictures_go_where_there_are_too_many(folder, monkeypatch):
    monkeypatch.setattr(links, "MOST_KEPT", 3)
    keys = []
    for i in range(5):
        for hours, key in enumerate(reversed(keys[-3:]), 1):
            age(key, hours)
        keys.append(links.keep(noise(i)))
        assert {path.stem for path in folder.iterdir()} == set(keys[-3:])


def test_visitors_may_keep_pictures_at_the_same_time(folder, monkeypatch):
    monkeypatch.setattr(links, "MOST_KEPT", 2)
    barrier, keys = Barrier(4), []

    def keep(image):
        barrier.wait()
        return links.keep(image)

    with ThreadPoolExecutor(4) as pool:
        for i in range(8):
            images = [noise(i + n // 2, (400, 300)) for n in range(4)]  # two have the same
            keys += pool.map(keep, images)
    assert len(set(keys)) == 9
    files = list(folder.iterdir())
    assert len(files) == 2 and {file.suffix for file in files} == {".png"}
    for file in files:
        with Image.open(file) as image:
            assert links.keep(image.convert("RGB")) == file.stem


# --- Label pictures

CLASSES = np.random.default_rng(5).integers(0, 6, (20, 30)).astype(np.uint8)
CLASSES[:2] = 255
COLOURS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [1, 0, 0]], np.uint8)


def saved(tmp_path, picture: Image.Image, **options) -> str:
    picture.save(tmp_path / "truth.png", **{"format": "PNG"} | options)
    return str(tmp_path / "truth.png")


def indexed(values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(values, "P")
    picture.putpalette(np.random.default_rng(6).integers(0, 9, 768).tolist())  # colours that do not tell classes apart
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        indexed(CLASSES),
        Image.fromarray(CLASSES),
        Image.fromarray(CLASSES.astype(np.uint16)),
        Image.merge("LA", [Image.fromarray(CLASSES), Image.new("L", (30, 20), 128)]),
    ],
    ids=["indexed", "grey", "16-bit grey", "grey and alpha"],
)
def test_numbers_of_a_label_picture_are_its_classes(tmp_path, picture):
    truth = pictures.truth_of(saved(tmp_path, picture), (30, 20))
    assert truth.dtype == np.uint8
    np.testing.assert_array_equal(truth, CLASSES)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_each_colour_of_a_label_picture_is_a_class_and_none_is_void(tmp_path, mode):
    classes = CLASSES % 6
    truth = pictures.truth_of(saved(tmp_path, Image.fromarray(COLOURS[classes]).convert(mode)), (30, 20))
    assert truth.max() < 255
    assert len({*zip(truth.ravel().tolist(), classes.ravel().tolist(), strict=True)}) == len(np.unique(classes)) == 6


def test_a_black_and_white_label_picture_has_two_classes(tmp_path):
    half = Image.fromarray(CLASSES > 2)
    assert half.mode == "1"
    np.testing.assert_array_equal(pictures.truth_of(saved(tmp_path, half), (30, 20)), CLASSES > 2)


def test_a_label_picture_that_means_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 30 x 20 pixels, but the picture has 20 x 30"):
        pictures.truth_of(saved(tmp_path, indexed(CLASSES)), (20, 30))
    with pytest.raises(ValueError, match="more than 255 colours: it needs one colour"):
        pictures.truth_of(saved(tmp_path, noise(0, (30, 20)), format="JPEG"), (30, 20))
    deep = CLASSES.astype(np.uint16)
    deep[-1] = 24001  # a class and an instance, as Cityscapes numbers them
    with pytest.raises(ValueError, match="numbers above 255"):
        pictures.truth_of(saved(tmp_path, Image.fromarray(deep)), (30, 20))


def test_as_many_colours_as_there_are_numbers_are_classes(tmp_path):
    colours = np.stack([np.arange(256), np.zeros(256), np.full(256, 7)], 1).astype(np.uint8)
    most = np.minimum(np.arange(600), 254).reshape(20, 30)
    truth = pictures.truth_of(saved(tmp_path, Image.fromarray(colours[most])), (30, 20))
    np.testing.assert_array_equal(truth, most)
    most[-1, -1] = 255
    with pytest.raises(ValueError, match="more than 255 colours"):
        pictures.truth_of(saved(tmp_path, Image.fromarray(colours[most])), (30, 20))


def test_a_file_that_is_no_picture_is_refused(tmp_path):
    whole = io.BytesIO()
    noise(0, (30, 20)).save(whole, "PNG")
    for content in (b"", b"<svg/>", b"\x89PNG\r\n\x1a\n", whole.getvalue()[:40], whole.getvalue()[:-300]):
        (tmp_path / "truth.png").write_bytes(content)
        with pytest.raises(ValueError, match="truth.png (is empty|is an SVG|is a PNG picture, but|cannot be read)"):
            pictures.truth_of(str(tmp_path / "truth.png"), (30, 20))


# --- Scores


def numbers(row: list) -> list[float]:
    return [float(text.removesuffix("%")) for text in row[1:]]


def test_the_truth_itself_scores_in_full_whatever_its_classes_are_called(session):
    labels = session.segmentation.labels_at(ORIGINAL)
    names = np.array([17, 3, 254, 0, 90, 91, 8, 200], np.uint8)
    ours, naive = pictures.scores(session, names[labels])
    assert ours == ["EmerDiff", *["100.0%"] * 4]
    assert naive[0] == "Naive upsampling" and all(20 < number < 99 for number in numbers(naive))


def test_scores_of_two_classes_are_those_that_one_counts(session):
    """A truth of the left and the right half: one to one, two segments match and six are wrong."""
    labels = session.segmentation.labels_at(ORIGINAL)
    truth = np.zeros(ORIGINAL[::-1], np.uint8)
    truth[:, 45:] = 1
    counts = np.stack([np.bincount(labels[truth == c], minlength=K) for c in (0, 1)], 1)  # (segments, classes)
    sides = counts.argmax(1)
    right = counts.max(1)
    expected = np.mean(
        [
            right[sides == c].sum() / ((truth == c).sum() + counts[sides == c].sum() - right[sides == c].sum())
            for c in (0, 1)
        ]
    )
    first, second = max(permutations(range(K), 2), key=lambda ids: counts[ids[0], 0] + counts[ids[1], 1])
    one_to_one = np.mean([counts[i, c] / (2700 + counts[i, 1 - c]) for c, i in enumerate((first, second))])
    scores = numbers(pictures.scores(session, truth)[0])
    assert scores[:3] == pytest.approx([100 * one_to_one, 100 * expected, 100 * right.sum() / truth.size], abs=0.06)
    assert scores[3] < 100


def test_void_pixels_do_not_count(session):
    truth = session.segmentation.labels_at(ORIGINAL).astype(np.uint8)
    spoiled = truth.copy()
    spoiled[:, :30] = np.random.default_rng(0).integers(0, K, (60, 30))
    assert max(numbers(pictures.scores(session, spoiled)[0])) < 90
    spoiled[:, :30] = 255
    assert pictures.scores(session, spoiled)[0][1:] == ["100.0%"] * 4
    one = np.full_like(truth, 255)
    one[-1, -1] = 3
    assert numbers(pictures.scores(session, one)[0])[1:3] == [100, 100]
    with pytest.raises(ValueError, match=r"void \(255\) everywhere"):
        pictures.scores(session, np.full_like(truth, 255))


def test_hidden_segments_are_scored_and_merged_ones_as_one(session):
    truth = session.segmentation.labels_at(ORIGINAL).astype(np.uint8)
    assert pictures.scores(session.hide(range(K)), truth) == pictures.scores(session, truth)
    merged = session.merge([0, 1])
    ours = merged.segmentation.labels_at(ORIGINAL).astype(np.uint8)
    assert pictures.scores(merged, ours)[0][1:] == ["100.0%"] * 4
    assert numbers(pictures.scores(merged, truth)[0])[0] < 95  # a class is left without a segment


# --- What is drawn


def test_chosen_cells_stay_bright_in_a_frame_that_shows_on_any_colour():
    for grey in (0, 255, (255, 169, 14)):  # the last one is the tint itself
        picture = Image.new("RGB", (143, 97), grey if isinstance(grey, tuple) else (grey,) * 3)  # no multiples of GRID
        chosen = np.zeros(GRID, bool)
        chosen[1:3, 2:4] = True
        none, marked = pictures.cells(picture, np.zeros(GRID, bool)), pictures.cells(picture, chosen)
        rows, columns = np.arange(97) * GRID[0] // 97, np.arange(143) * GRID[1] // 143
        inside = chosen[rows][:, columns]
        around = binary_dilation(inside, iterations=2) & ~inside
        assert (marked[around] == 0).all()
        assert (marked[inside & ~binary_erosion(inside)] == 255).all()
        rest = ~inside & ~around
        assert (marked[rest] <= none[rest]).all() and marked[rest].mean() <= 0.5 * none[rest].mean()
        assert marked[binary_erosion(inside, iterations=3)].mean() > marked[rest].mean() + 30
    lines = (pictures.cells(Image.new("RGB", (143, 97)), np.zeros(GRID, bool)) > 0).all(2)  # from border to border
    assert lines.all(1).sum() == GRID[0] - 1 and lines.all(0).sum() == GRID[1] - 1


def test_the_table_has_a_row_for_each_segment_and_its_shares_make_a_whole(session):
    edited = session.merge([2, 5]).rename([3], "<b>x</b>").hide([6])
    rows = pictures.table(edited)
    assert [row[1] for row in rows] == ["Segment 0", "Segment 1", "Segment 2", "<b>x</b>", "Segment 4",
                                        "Segment 6 (hidden)", "Segment 7"]  # fmt: skip
    result = edited.segmentation
    for i, (_, _, share, naive, sure) in enumerate(rows):
        ours = result.labels == i
        assert share == pytest.approx(100 * ours.mean(), abs=0.051)
        assert naive == pytest.approx(100 * (result.naive_labels == i).mean(), abs=0.051)
        assert sure == pytest.approx(100 * result.confidence[ours].mean(), abs=0.51)
    for column in (2, 3):
        assert sum(row[column] for row in rows) == pytest.approx(100, abs=0.05 * len(rows))


def test_html_is_only_in_the_tables_first_column_and_never_a_visitors(session):
    rows = pictures.table(session.rename([3], "<b>x</b>"))
    for i, row in zip(session.ids, rows, strict=True):
        colour = ",".join(map(str, palette(K)[i]))
        assert row[0] == f"<span id='segment-{i}' style='color:rgb({colour})'>■</span>"
        assert pictures.segment_of_row(row) == i
        assert not any("<" in str(value) for value in (row[2:] if i == 3 else row[1:]))
    assert rows[3][1] == "<b>x</b>"


@pytest.mark.parametrize("row", [None, [], "", "<span id='segment-1'", [None], [["a"]], ["<b>x</b>"], [3], {"0": 1}])
def test_what_is_no_row_of_the_table_is_no_segment(row):
    assert pictures.segment_of_row(row) is None


def test_a_segment_without_pixels_has_a_row_without_confidence(found, fine):
    responses = fine.responses.copy()
    responses[4] = 0
    empty = segmentation(fine.coarse_labels, responses)
    session = Session(replace(found, segmentation=empty), K)
    (row,) = (row for row in pictures.table(session) if not row[2])
    assert row[-1] is None
    assert "0.0% of the pixels, 3 cells" in pictures.facts(session, [int(row[1].split()[1])])


def test_facts_are_of_the_chosen_segments_together(session):
    edited = session.rename([1], "Sky")
    inside = np.isin(edited.segmentation.labels, [1, 6])
    sure = edited.segmentation.confidence[inside].mean()
    expected = f"Sky, Segment 6: {inside.mean():.1%} of the pixels, 6 cells, mean confidence {sure:.0%}."
    assert pictures.facts(edited, [6, 1]) == expected
    for ids in ([], [99]):
        assert pictures.facts(edited, ids).startswith("Choose a segment")


def test_a_change_is_that_of_the_segments_together_in_levels_of_255(session):
    of_each = session.segmentation.responses.astype(float)
    together = of_each[session.ids.index(1)] + of_each[session.ids.index(6)]
    np.testing.assert_allclose(
        pictures.change(session, [6, 1]), 127.5 * np.sqrt((together**2).sum(0)), rtol=1e-3, atol=1e-3
    )


def test_without_a_choice_a_sure_segment_of_middling_size_away_from_the_border_is_looked_at(found):
    coarse = np.zeros((8, 8), int)  # all over
    coarse[3:5, 3:5] = 1  # the object
    coarse[0, :3] = 2  # as sure, but at the border
    coarse[5, 5:7] = 3  # less sure
    cells = upsample_nearest(coarse, (64, 64)) == np.arange(4)[:, None, None]
    changes = cells * np.array([9, 9, 9, 2])[:, None, None] + 1.0
    responses, image = np.repeat(changes[:, None], 3, 1).astype(np.float32), np.zeros((64, 64, 3), np.uint8)
    result = segmentation(coarse, responses, image=image)
    assert pictures.interesting(result) == 1
    session = Session(replace(found, segmentation=result, shown=Image.fromarray(image)), 4)
    object_ = session.ids[session.segmentation.labels[32, 32]]
    assert pictures.examined(session, []) == pictures.examined(session, [99]) == [object_]
    assert pictures.examined(session, [3, 0, 99]) == [3, 0]
    assert "Click another segment" in pictures.evidence_of(session, [])
    assert "Click another segment" not in pictures.evidence_of(session, [3])


def test_what_was_painted_is_shown_only_beside_what_it_was_painted_of(session, found):
    def painted(of: Session, ids: list[int]) -> evidence.Painted:
        return evidence.Painted(of.made_of, of.cells_of(ids), {})

    another = Session(replace(found, source="another.png"), K)
    for now, chosen, expected in (
        (session, [3], True),
        (session.rename([3], "sky"), [3], True),
        (session, [3, 4], False),
        (session.merge([3, 4]), [3], False),  # its cells are more than they were
        (another, [3], False),
        (another.gone(), [3], False),
        (None, [3], False),
    ):
        assert evidence.is_of_now(painted(session, [3]), now, chosen) is expected
    assert evidence.is_of_now(painted(session, pictures.examined(session, [])), session, [])
    assert not evidence.is_of_now(None, session, [3])


def test_evidence_names_segments_as_text_and_says_what_its_colours_mean(session):
    shown = pictures.evidence_of(session.rename([3], "<b>x</b>"), [3])
    assert "&lt;b&gt;x&lt;/b&gt;: " in shown and "<b>" not in shown
    most = pictures.change(session, [3]).max()
    assert f"<span>0</span><span>{most / 2:.3g}</span><span>{most:.3g}</span>" in shown and "levels of 255" in shown
    assert f"Its cells: {session.cells_of([3]).sum()} of {GRID[0] * GRID[1]}" in shown
    assert shown.count('<img src="data:image/jpeg;base64,') == 2 and shown.count('alt="') == 2


def test_what_a_stopped_run_has_not_perturbed_is_said(session, fine, found):
    responses = fine.responses.copy()
    responses[2] = 0
    stopped = Session(replace(found, segmentation=segmentation(fine.coarse_labels, responses)), K)
    segment = next(i for i in stopped.ids if not pictures.change(stopped, [i]).any())
    assert "has not perturbed it" in pictures.evidence_of(stopped, [segment])
    assert "has not perturbed it" not in pictures.evidence_of(stopped, [(segment + 1) % K])


@pytest.mark.parametrize("most", [0.25, 1, 19])
def test_a_colour_bar_has_the_colours_and_numbers_of_the_map(most):
    values = np.linspace(0, most, 256)[None]
    bar = pictures.colour_bar(most, "levels of 255")
    assert re.findall(r"<span>(.*?)</span>", bar) == [f"{x:.3g}" for x in (0, most / 2, most)]
    stops = [tuple(map(int, stop)) for stop in re.findall(r"rgb\((\d+),(\d+),(\d+)\)", bar)]
    drawn = pictures.heat(values, (256, 1))[0]
    np.testing.assert_allclose(stops, drawn[np.linspace(0, 255, len(stops)).round().astype(int)], atol=3)


def test_a_pair_amplifies_the_change_about_the_unperturbed_picture(tmp_path):
    unperturbed = np.full((4, 6, 3), 100.0)
    ends = [unperturbed - 10, unperturbed + 40]
    value = pair.shown(unperturbed, ends, ("less", "more"), "name")
    levels = {
        factor: [np.unique(np.asarray(Image.open(file["path"]))).tolist() for file in files]
        for factor, files in value["files"].items()
    }
    assert value["titles"] == ["less", "more"] and levels == {"1": [[90], [140]], "5": [[50], [255]]}


@pytest.mark.parametrize(
    ("text", "cells"),
    [("", []), ("1,2", [(1, 2)]), (" 3,5  0 , 0".replace(" , ", ","), [(0, 0), (3, 5)]), ("1,1;1,1", [(1, 1)])],
)
def test_cells_are_read_as_they_are_written(text, cells):
    chosen = probing.cells_of(text, GRID)
    assert [tuple(cell) for cell in np.argwhere(chosen)] == cells
    np.testing.assert_array_equal(probing.cells_of(probing.written(chosen), GRID), chosen)


@pytest.mark.parametrize("text", ["4,0", "0,6", "-1,0", "a", "1", "1,2,3", "1.5,2", "<b>1,2</b>"])
def test_what_is_no_cell_of_the_grid_is_refused(text):
    with pytest.raises(ValueError, match="rows from 0 to 3 and columns from 0 to 5"):
        probing.cells_of(text, GRID)


def test_views_show_the_labels_at_the_size_that_is_shown(session):
    of = pictures.layers(session)
    cells = upsample_nearest(session.segmentation.coarse_labels, SHOWN[::-1])
    expected = {
        "slider": [session.naive_labels, session.labels],
        "side by side": [session.naive_labels, session.labels],
        "coarse map": [cells],
    }
    for view in pictures.VIEWS:
        panes = pictures.panes(of, view)
        for pane, labels in zip(panes, expected.get(view, [session.labels]), strict=True):
            np.testing.assert_array_equal(pane.labels, labels)
            np.testing.assert_array_equal(pane.legend.colours, session.legend.colours)
            assert np.asarray(pane.picture).shape == (*SHOWN[::-1], 3) and pane.ids == session.ids
    assert pictures.panes(pictures.alone("a", session.found.shown), "picture")[0].labels is None


def test_the_confidence_view_is_bright_where_confidence_is_high(session):
    sure = np.zeros(SIZE, np.float32)
    sure[:, 36:] = 1
    drawn = pictures.panes(replace(pictures.layers(session), confidence=sure), "confidence")[0].picture
    low, high = (matplotlib.colormaps["magma"](value)[:3] for value in (0.0, 1.0))
    np.testing.assert_allclose(drawn[:, :68], np.broadcast_to(255 * np.array(low), (96, 68, 3)), atol=1)
    np.testing.assert_allclose(drawn[:, 76:], np.broadcast_to(255 * np.array(high), (96, 68, 3)), atol=1)
    unknown = replace(pictures.layers(session), confidence=None)  # of stored results: the masks instead
    assert [pane.title for pane in pictures.panes(unknown, "confidence")] == ["EmerDiff"]


def test_heat_is_scaled_to_the_largest_value_and_flat_nothing_is_dark():
    values = np.outer(np.ones(12), np.linspace(0, 3, 24)).astype(np.float32)
    drawn = pictures.heat(values, (24, 12)).astype(int).sum(2)
    assert (np.diff(drawn, axis=1) > 0).mean() > 0.9 and drawn[0, -1] > 600
    np.testing.assert_array_equal(pictures.heat(values, (24, 12)), pictures.heat(values / 300, (24, 12)))
    dark = pictures.heat(np.zeros((12, 24)), (48, 24))
    assert dark.shape == (24, 48, 3) and dark.max() < 8


def test_a_painted_picture_is_clipped_and_enlarged():
    painted = np.full((*SIZE, 3), 300.0)
    painted[:, 36:] = -20
    drawn = pictures.painted(painted, SHOWN)
    assert drawn.shape == (*SHOWN[::-1], 3) and drawn.dtype == np.uint8
    assert (drawn[:, :64] == 255).all() and (drawn[:, 80:] == 0).all()


@pytest.mark.parametrize("k", range(2, K + 1))
def test_a_sketch_of_all_there_is_has_the_cells_of_the_cut(session, fine, k):
    cut = session.cut(k)
    at_size = pictures.sketched(fine, pictures.alone("a", Image.fromarray(fine.image)), k)
    np.testing.assert_array_equal(at_size.coarse_labels, cut.segmentation.coarse_labels)
    np.testing.assert_array_equal(at_size.legend.colours, cut.legend.colours)
    assert at_size.legend.names == cut.legend.names
    assert (at_size.labels == cut.segmentation.labels).mean() > 0.8  # responses are not added here
    assert pictures.sketched(fine, pictures.alone("a", session.found.shown), k).labels.shape == SHOWN[::-1]


def test_a_sketch_of_all_there_is_has_the_labels_of_the_result(session, fine):
    whole = pictures.sketched(fine, pictures.alone("a", Image.fromarray(fine.image)), K)
    np.testing.assert_array_equal(whole.labels, session.segmentation.labels)
    np.testing.assert_array_equal(whole.naive_labels, session.segmentation.naive_labels)


@pytest.mark.parametrize("k", range(2, K + 1))
def test_a_sketch_is_the_cut_where_segments_do_not_overlap(fine, k):
    apart = (fine.labels == np.arange(K)[:, None, None])[:, None] * np.float16([[[[0.5]], [[0.25]], [[1]]]])
    result = segmentation(fine.coarse_labels, apart)
    np.testing.assert_array_equal(result.labels, fine.labels)
    image = Image.fromarray(fine.image)
    cut = Session(Found("a.png", image, result, "exact", 1), k)
    np.testing.assert_array_equal(pictures.sketched(result, pictures.alone("a", image), k).labels, cut.labels)


@pytest.mark.parametrize("k, panels", [(3, []), (5, [5]), (8, [5]), (15, [5, 10, 15]), (FINE, [5, 10, 15, 20, 30])])
def test_the_figure_has_a_panel_for_each_k_that_there_is(k, panels):
    coarse = np.arange(60).reshape(6, 10) % k
    responses = np.random.default_rng(0).random((k, 3, 24, 40)).astype(np.float16)
    result = segmentation(coarse, responses, image=np.zeros((24, 40, 3), np.uint8))
    session = Session(Found("a.png", noise(0, (40, 24)), result, "exact", 1), 2)
    axes = pictures.figure(session).axes
    assert [axis.get_title() for axis in axes] == ["picture", *(f"k = {n}" for n in panels)]
    np.testing.assert_array_equal(axes[0].images[0].get_array(), session.found.shown)
    for axis, n in zip(axes[1:], panels, strict=True):
        drawn, labels = np.asarray(axis.images[0].get_array()), session.cut(n).labels
        inside = ~boundaries(labels)
        tint = 0.4 * np.asarray(session.found.shown) + 0.6 * palette(FINE)[labels]
        assert np.abs(drawn - tint)[inside].max() <= 1


def test_the_summary_line_says_what_was_done(session):
    line, folded = pictures.words(session.cut(5).segmentation.summary(), 5, 75).split("<details>")
    assert line == "**5 segments** in 75 s. " and "Cut from 8 segments by adding their responses." in folded
    changed = session.cut(5).segmentation.changed
    assert f"{changed:.0%} of the pixels" in folded and "k = 5, timestep 301" in folded and "Miniature" in folded
    summary = session.cut(5).merge([0, 1]).segmentation.summary()
    summary["segments"][0]["share"] = 0
    summary["notes"] = ["Said to all.", *summary["notes"]]
    line, folded = pictures.words(summary, 5).split("<details>")
    assert line == "**3 segments** (k = 5: 1 merged, 1 without pixels). Said to all. " and "Said" not in folded
    summary = session.cut(2).segmentation.summary()
    summary["segments"][0]["share"] = 0
    assert pictures.words(summary, 2).startswith("**1 segment** (k = 2: 1 without pixels).")
    assert [pictures.duration(seconds) for seconds in (0.2, 89, 100, 3600)] == ["1 s", "89 s", "2 min", "60 min"]


def test_help_says_how_many_steps_the_presets_make():
    own = runs.defaults(runs.label_of(runs.MINIATURE))
    steps = {}
    for preset in PRESETS:
        rows = [runs.plan(runs.label_of(runs.MINIATURE), preset, {"num_segments": k}).rows for k in (2, 3)]
        steps[preset] = (rows[1] - rows[0]) / (2 if replace(own, **PRESETS[preset]).two_sided else 1)
    said = f"*Fast* makes {steps['fast']:g} denoising steps where *exact* makes {steps['exact']:g} with the miniature"
    words = " ".join(HELP.split())
    assert said in words and f"*preview* makes {steps['preview']:g}." in words
    assert "(15 with Stable Diffusion)" in words  # t = 281, 261, ..., 1: the paper's 50 steps


# --- Runs


@pytest.mark.parametrize(
    "size, expected",
    [
        ((100, 80), (512, 410)),
        ((700, 500), (700, 500)),
        ((512, 64), (512, 64)),
        ((1024, 1024), (1024, 1024)),
        ((3000, 2000), (1024, 683)),
        ((64, 1000), (64, 1000)),
        ((1600, 100), (1024, 64)),
    ],
)
def test_pictures_are_shown_with_a_longer_side_of_512_to_1024_pixels(size, expected, tmp_path):
    picture = noise(0, size)
    picture.save(file := tmp_path / "noise.png")
    shown = seen(str(file)).shown
    assert shown.size == expected and 512 <= max(shown.size) <= 1024
    np.testing.assert_allclose(np.mean(shown, (0, 1)), np.mean(picture, (0, 1)), atol=3)
    if size == expected:
        np.testing.assert_array_equal(shown, picture)


def test_a_checkpoint_that_cannot_be_had_is_stood_in_for_by_another_and_that_is_said(monkeypatch, checkpoint, tmp_path):
    small = {"image_area": 64 * 64, "num_inference_steps": 10, "num_segments": 3, "modulation_timestep": 101}
    models = {"Small": runs.MINIATURE, "Gone": str(tmp_path / "gone"), "There": str(checkpoint)}
    monkeypatch.setattr(runs, "MODELS", models)
    noise(0).save(tmp_path / "picture.png")
    assert runs.pipeline_of("Gone") is runs.pipeline_of("There") is not runs.pipeline_of("Small")
    found = {
        model: value_of(runs.find(tmp_path / "picture.png", model, "exact", small, name=str(checkpoint)))
        for model in ("Gone", "There")
    }
    assert "Gone could not be loaded; There was used instead." in found["Gone"].segmentation.notes
    assert "was used instead" not in " ".join(found["There"].segmentation.notes)
    assert found["Gone"].segmentation.model == str(checkpoint)
    line = pictures.words(found["Gone"].segmentation.summary(), 3)
    assert "There, k = 3" in line and "was used instead" in line


def test_where_no_checkpoint_can_be_had_the_chosen_ones_reason_is_told_and_the_miniature_is_left(monkeypatch, tmp_path):
    models = {"Small": runs.MINIATURE, "Gone": str(tmp_path / "gone"), "Also": str(tmp_path / "also")}
    monkeypatch.setattr(runs, "MODELS", models)
    for model in ("Gone", "Also"):
        with pytest.raises(ValueError, match=f"cannot load .*{model.lower()}"):
            runs.pipeline_of(model)
    assert runs.pipeline_of("Small") is runs.pipeline(runs.MINIATURE)


def test_loading_says_so_meanwhile_and_goes_on_when_nobody_waits(monkeypatch):
    monkeypatch.setattr(runs, "_pipelines", {})
    begin, loading = Event(), Event()

    def load(name, **options):
        loading.set()
        assert begin.wait(10)
        return emerdiff.load(name, **options)

    monkeypatch.setattr(runs, "emerdiff", SimpleNamespace(load=load))
    model = runs.label_of(runs.MINIATURE)
    waiting, left = runs.loaded(model), runs.loaded(model)
    said = [next(waiting), next(left)]
    assert {progress.stage for progress in said} == {f"loading {model}"} and loading.wait(10)
    left.close()
    begin.set()
    assert value_of(waiting) is runs.pipeline(runs.MINIATURE)
    assert list(runs.loaded(model)) == []  # it is there: nothing is said


def test_a_model_that_cannot_be_loaded_ends_in_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "MODELS", {"Gone": str(tmp_path / "gone")})
    for or_another in (True, False):
        with pytest.raises(ValueError, match="cannot load .*gone"):
            value_of(runs.loaded("Gone", or_another=or_another))


def test_the_last_checkpoint_is_let_go_before_the_next_is_loaded(monkeypatch, checkpoint, tmp_path):
    copytree(checkpoint, tmp_path / "next")
    last = weakref.ref(runs.pipeline(str(checkpoint)))
    assert last() is not None
    there = []

    def load(name, **options):
        there.append(last() is not None)
        return emerdiff.load(name, **options)

    monkeypatch.setattr(runs, "emerdiff", SimpleNamespace(load=load))
    runs.pipeline(str(tmp_path / "next"))
    assert there == [False]


def test_only_models_of_the_page_are_loaded():
    for model in ("miniature", "../weights", "stable-diffusion-v1-5/stable-diffusion-v1-5", "", None):
        with pytest.raises(ValueError, match="choose one of these models: Miniature"):
            runs.pipeline_of(model)
    assert runs.pipeline_of(next(iter(runs.MODELS))) is runs.pipeline("miniature")


def test_visitors_who_want_a_model_at_once_get_the_same_one_and_the_miniature_stays(monkeypatch, checkpoint, tmp_path):
    monkeypatch.setattr(runs, "_pipelines", {})
    with ThreadPoolExecutor(8) as pool:
        wanted = [runs.MINIATURE, str(checkpoint)] * 4
        got = list(pool.map(runs.pipeline, wanted))
    assert got[0].unet is not got[1].unet and all(pipe is got[i % 2] for i, pipe in enumerate(got))
    with pytest.raises(ValueError, match="cannot load"):
        runs.pipeline(str(tmp_path))
    copytree(checkpoint, tmp_path / "another")
    runs.pipeline(str(tmp_path / "another"))
    assert runs.pipeline(runs.MINIATURE) is got[0]
    assert set(runs._pipelines) == {runs.MINIATURE, str(tmp_path / "another")}  # one checkpoint fills the memory
