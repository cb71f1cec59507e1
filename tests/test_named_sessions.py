"""Names on the page: a session's names, what is found, merged and shared, and the endpoints; with a known model."""

import json
import re
from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pytest
from conftest import quick
from PIL import Image

import emerdiff
from emerdiff.exporting import coco
from emerdiff.imagetext import Map
from explorer import api, links, namers, naming, pictures
from explorer.links import Link
from explorer.session import Edits, Found, Session

SIDE, K = 32, 4
WORDS = "sky, tree|wood, car, boat"
VALUES = {
    "model": "miniature", "k": K, "modulation_timestep": 281, "strength": 10.0, "feature_timestep": 301,
    "smoothing": 0.8, "seed": 42, "example": "house",
}  # fmt: skip


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """Quadrants of the picture show sky, tree, sky, and car or boat."""
    scores = np.zeros((2, 2, 5), np.float32)
    scores[0, 0, 0] = scores[0, 1, 2] = scores[1, 0, 0] = 5
    scores[0, 1, 1] = 4
    scores[1, 1, 3], scores[1, 1, 4] = 3, 2.9
    known = Map("known", scores, ("sky", "tree", "wood", "car", "boat"))
    monkeypatch.setattr(namers, "_model", lambda: known)
    monkeypatch.setattr(namers, "words", lambda: emerdiff.Words.of(WORDS))


@pytest.fixture
def session() -> Session:
    """Four segments, the quadrants."""
    coarse = np.array([[0, 1], [2, 3]]).repeat(2, 0).repeat(2, 1).astype(np.int32)
    inside = coarse.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1) == np.arange(K)[:, None, None]
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    features = np.random.default_rng(0).random((4, 4, 5)).astype(np.float32)
    responses = inside[:, None].repeat(3, 1).astype(np.float16)
    found = emerdiff.Segmentation(
        image, coarse, features, responses, (SIDE, SIDE), quick(num_segments=K, smoothing=0), "miniature"
    )
    return Session(Found("a.png", Image.fromarray(image).resize((64, 64)), found, "exact", 1.0), K)


def names_of(session: Session) -> list[str]:
    return list(session.legend.names)


def by_place(session: Session) -> dict[str, str]:
    """The names in the four quadrants, whatever the segments' numbers are."""
    at = {"sky": (5, 5), "tree": (50, 5), "low": (5, 50), "unsure": (50, 50)}
    return {place: session.name(session.at(*xy)) for place, xy in at.items()}


def test_segments_are_named_where_the_model_is_sure(session):
    assert session.named is None and names_of(session) == [f"Segment {i}" for i in range(K)]
    asked = session.ask(WORDS)
    unsure = asked.at(50, 50)
    assert by_place(asked) == {"sky": "sky", "tree": "tree", "low": "sky", "unsure": f"Segment {unsure}"}
    assert asked.undo().edits == session.edits and asked.ask("").named is None
    with pytest.raises(ValueError, match="at least two words"):
        session.ask("sky")


def test_a_visitors_name_is_never_overwritten(session):
    mine = session.rename([session.at(5, 5)], "Heaven").ask(WORDS)
    assert by_place(mine)["sky"] == "Heaven" and by_place(mine)["low"] == "sky"
    again = mine.ask("car, boat").ask(WORDS)
    assert by_place(again)["sky"] == "Heaven"


def test_names_follow_k_and_merges(session):
    asked = session.ask(WORDS)
    for k in range(2, K + 1):
        cut = asked.cut(k)
        expected = emerdiff.name_segments(cut.segmentation, WORDS, namers.model())
        assert [cut.named.told(n) for n in range(len(cut.ids))] == [expected.told(n) for n in range(len(cut.ids))]
    merged = asked.merge([asked.at(5, 5), asked.at(5, 50)])
    assert by_place(merged)["sky"] == by_place(merged)["low"] == "sky"


def test_segments_of_one_name_are_merged_at_once(session):
    asked = session.ask(WORDS)
    assert asked.namesakes == (frozenset({asked.at(5, 5), asked.at(5, 50)}),) and session.namesakes == ()
    merged = asked.merge_namesakes()
    assert len(merged.ids) == K - 1 and by_place(merged)["low"] == "sky" and merged.namesakes == ()
    assert merged.undo().ids == asked.ids
    with pytest.raises(ValueError, match="no two segments have the same name"):
        merged.merge_namesakes()


def test_a_visitors_names_merge_too_and_stay(session):
    two = session.rename([session.at(50, 50)], " SKY").rename([session.at(5, 5)], "Sky").merge_namesakes()
    assert len(two.ids) == K - 1
    first = "Sky" if session.at(5, 5) < session.at(50, 50) else "SKY"
    assert by_place(two)["unsure"] == by_place(two)["sky"] == first
    named = session.rename([session.at(50, 50)], "sky").ask(WORDS).merge_namesakes()
    assert by_place(named)["unsure"] == by_place(named)["low"] == "sky" and named.ask("").name(named.at(5, 5)) == "sky"


def test_at_least_two_segments_are_left(session):
    all_same = replace(session, edits=Edits(names=dict.fromkeys(range(K), "Sky")))
    with pytest.raises(ValueError, match="at least two segments must be left"):
        all_same.merge_namesakes()


@pytest.mark.parametrize("words", [WORDS, "", "sky,sky", "car, boat"])
def test_a_word_is_found_among_the_words_or_the_usual_ones(session, words):
    fits = session.fits("tree", words)
    assert fits[session.ids.index(session.at(50, 5))] == fits.max() > 0.9
    assert sorted(fits)[-2] < 0.4 and ((fits >= 0) & (fits <= 1)).all()
    assert session.fits(" TREE|wood ", words).max() > fits.max()  # the better of two synonyms


def test_what_is_found_lights_up_and_is_told(session):
    html = naming.lights(session, "tree", WORDS)
    assert re.search(rf"tree fits <span[^>]*>■</span> Segment {session.at(50, 5)} 9\d%", html)
    assert html.count("<figure>") == 1


def test_the_table_tells_how_sure_it_is_and_what_the_visitor_named(session):
    mine = session.rename([session.at(50, 5)], "<b>Oak").ask(WORDS)
    html = naming.table(mine)
    assert "unsure: car or boat" in html and "&lt;b&gt;Oak" in html and "you named it; tree fits best" in html
    assert html.count("<meter") == K
    assert "(hidden)" in str(pictures.table(mine.hide([mine.at(5, 5)])))


def test_names_leave_in_exports_and_summaries(session):
    asked = session.ask(WORDS)
    saved = coco(asked.labels, asked.legend, file_name="a.png", image_id=1)
    assert {"sky", "tree"} < {category["name"] for category in saved["categories"]}
    summary = json.loads(json.dumps(asked.summary(), allow_nan=False))
    names = {part["segment"]: part["name"] for part in summary["segments"]}
    assert sorted(map(str, names.values())) == ["None", "sky", "sky", "tree"]
    assert "name" not in session.summary()["segments"][0]


def test_links_carry_the_words(session):
    link = Link(**VALUES, edits=session.ask(WORDS).edits)
    again = Link.parse(dict(parse_qsl(link.query)))
    assert again == link and again.edits.words == WORDS
    long = ", ".join(f"word {i}" for i in range(400))
    fitting = Link(**VALUES, edits=session.ask(long).edits).fitting()
    assert len(fitting.query) <= links.LONGEST and fitting.edits.words == ""


@pytest.mark.parametrize(
    "words, message",
    [('"sky"', "at least two words"), ("3", "edits must be like"), ('["sky","car"]', "edits must be like")],
)
def test_words_of_a_link_are_checked(words, message):
    query = {name: str(value) for name, value in VALUES.items()} | {"edits": f'{{"words":{words}}}'}
    with pytest.raises(ValueError, match=message):
        Link.parse(query)


def test_the_endpoint_names_the_last_result(session):
    summary, named = api.name(session, WORDS)
    assert named.edits.words == WORDS and {part["name"] for part in summary["segments"]} == {"sky", "tree", None}
    assert all(len(part["words"]) == 3 for part in summary["segments"])
    with pytest.raises(ValueError, match="call /segment first"):
        api.name(None, WORDS)
