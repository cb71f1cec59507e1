"""Names on the page: a session's names, what is found, merged and shared, and the endpoints; with a known model."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from urllib.parse import parse_qsl

import numpy as np
import pytest
from conftest import quick
from gradio_client import Client
from PIL import Image
from test_app import served
from test_guard import asked, fired, upload, values

import app
import emerdiff
from emerdiff.exporting import coco
from emerdiff.imagetext import Map
from explorer import api, gpu, links, namers, naming, pictures, runs
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


def at(session: Session, x: int, y: int) -> int:
    """The id of the segment at a pixel."""
    return session.ids[session.labels[y, x]]


def by_place(session: Session) -> dict[str, str]:
    """The names in the four quadrants, whatever the segments' numbers are."""
    places = {"sky": (5, 5), "tree": (50, 5), "low": (5, 50), "unsure": (50, 50)}
    return {place: session.name(at(session, *xy)) for place, xy in places.items()}


def test_segments_are_named_where_the_model_is_sure(session):
    assert session.named is None and names_of(session) == [f"Segment {i}" for i in range(K)]
    asked = session.ask(WORDS)
    unsure = at(asked, 50, 50)
    assert by_place(asked) == {"sky": "sky", "tree": "tree", "low": "sky", "unsure": f"Segment {unsure}"}
    assert asked.undo().edits == session.edits and asked.ask("").named is None
    with pytest.raises(ValueError, match="at least two words"):
        session.ask("sky")


def test_a_visitors_name_is_never_overwritten(session):
    mine = session.rename([at(session, 5, 5)], "Heaven").ask(WORDS)
    assert by_place(mine)["sky"] == "Heaven" and by_place(mine)["low"] == "sky"
    again = mine.ask("car, boat").ask(WORDS)
    assert by_place(again)["sky"] == "Heaven"


def test_names_follow_k_and_merges(session):
    asked = session.ask(WORDS)
    for k in range(2, K + 1):
        cut = asked.cut(k)
        expected = emerdiff.name_segments(cut.segmentation, WORDS, namers.model())
        assert [cut.named.told(n) for n in range(len(cut.ids))] == [expected.told(n) for n in range(len(cut.ids))]
    merged = asked.merge([at(asked, 5, 5), at(asked, 5, 50)])
    assert by_place(merged)["sky"] == by_place(merged)["low"] == "sky"


def test_segments_of_one_name_are_merged_at_once(session):
    asked = session.ask(WORDS)
    assert asked.namesakes == (frozenset({at(asked, 5, 5), at(asked, 5, 50)}),) and session.namesakes == ()
    merged = asked.merge_namesakes()
    assert len(merged.ids) == K - 1 and by_place(merged)["low"] == "sky" and merged.namesakes == ()
    assert merged.undo().ids == asked.ids
    with pytest.raises(ValueError, match="no two segments have the same name"):
        merged.merge_namesakes()


def test_a_visitors_names_merge_too_and_stay(session):
    two = session.rename([at(session, 50, 50)], " SKY").rename([at(session, 5, 5)], "Sky").merge_namesakes()
    assert len(two.ids) == K - 1
    first = "Sky" if at(session, 5, 5) < at(session, 50, 50) else "SKY"
    assert by_place(two)["unsure"] == by_place(two)["sky"] == first
    named = session.rename([at(session, 50, 50)], "sky").ask(WORDS).merge_namesakes()
    assert by_place(named)["unsure"] == by_place(named)["low"] == "sky" and named.ask("").name(at(named, 5, 5)) == "sky"


def test_at_least_two_segments_are_left(session):
    all_same = replace(session, edits=Edits(names=dict.fromkeys(range(K), "Sky")))
    with pytest.raises(ValueError, match="at least two segments must be left"):
        all_same.merge_namesakes()


@pytest.mark.parametrize("words", [WORDS, "", "sky,sky", "car, boat"])
def test_a_word_is_found_among_the_words_or_the_usual_ones(session, words):
    fits = session.fits("tree", words)
    assert fits[session.ids.index(at(session, 50, 5))] == fits.max() > 0.9
    assert sorted(fits)[-2] < 0.4 and ((fits >= 0) & (fits <= 1)).all()
    assert session.fits(" TREE|wood ", words).max() > fits.max()  # the better of two synonyms


def test_what_is_found_lights_up_and_is_told(session):
    html = naming.lights(session, "tree", WORDS)
    assert re.search(rf"tree fits <span[^>]*>■</span> Segment {at(session, 50, 5)} 9\d%", html)
    assert html.count("<figure>") == 1


def test_the_table_tells_how_sure_it_is_and_what_the_visitor_named(session):
    mine = session.rename([at(session, 50, 5)], "<b>Oak").ask(WORDS)
    html = naming.table(mine)
    assert "unsure: car or boat" in html and "&lt;b&gt;Oak" in html and "you named it; tree fits best" in html
    assert html.count("<meter") == K
    assert [naming.percent(p) for p in (0.996, 0.006, 0.004)] == ["100%", "1%", "under 1%"]
    assert "(hidden)" in str(pictures.table(mine.hide([at(mine, 5, 5)])))


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


# --- In the running page


@pytest.fixture(scope="module")
def demo():
    return app.create_demo()


@pytest.fixture(scope="module")
def url(demo):
    with served(demo) as address:
        yield address


def press(url, demo, label: str, words: str, visitor: str) -> tuple[bool, object]:
    """What a press of a button of the tab Names answers."""
    button = next(n for n, block in demo.blocks.items() if getattr(block, "value", None) == label)
    edit = next(n for n, fn in demo.fns.items() if (button, "click") in fn.targets)
    return fired(url, edit, [None, words, [], "slider"], trigger=button, session=visitor)


def find(url, demo, word: str, visitor: str) -> str:
    """The words below what lights up."""
    of = next(n for n, fn in demo.fns.items() if fn.name == "find_word")
    done, answer = fired(url, of, [None, word, WORDS], session=visitor)
    assert done
    return re.sub("<[^>]*>", "", answer["data"][0]).strip()


def told(url, demo, visitor: str) -> str:
    """The table of names that a visitor sees."""
    tell = next(n for n, fn in demo.fns.items() if fn.name == "tell_names")
    done, answer = fired(url, tell, [None], session=visitor)
    assert done
    return answer["data"][0]


@pytest.fixture
def busy(url, monkeypatch, tmp_path):
    """Another visitor's run, which the network has begun and does not end."""
    find, begun, go = runs.find, Event(), Event()

    def held(*given, **named):
        run = find(*given, **named)
        yield next(run)
        begun.set()
        go.wait(120)
        run.close()
        raise ValueError("the test is over")

    monkeypatch.setattr(runs, "find", held)
    Image.linear_gradient("L").save(tmp_path / "other.png")
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(asked, url, "segment", upload(url, tmp_path / "other.png"), *values(), session="other")
        try:
            assert begun.wait(60), run.result(1)
            yield run
        finally:
            go.set()
    assert "The test is over" in run.result()[1]


def test_names_do_not_wait_for_the_network(url, demo, session, busy):
    demo.visitors.put("busy", session)
    assert gpu.busy()
    assert press(url, demo, "Name the segments", WORDS, "busy")[0]
    assert "unsure: car or boat" in told(url, demo, "busy")
    assert re.fullmatch(r"tree fits ■ tree 9\d%", find(url, demo, "tree", "busy"))
    assert press(url, demo, "Merge by name", WORDS, "busy")[0]
    assert len(demo.visitors.get("busy").ids) == K - 1
    done, answer = asked(url, "name", "car, boat", session="busy")
    assert done and {part["name"] for part in answer[0]["segments"]} <= {"car", "boat", None}
    assert press(url, demo, "Remove the names", WORDS, "busy")[0] and told(url, demo, "busy") == ""
    assert not busy.done()  # all of this before the network has answered the other visitor


def test_visitors_of_one_result_see_their_own_names_and_words_only(url, demo, session):
    """They share the result, as that of an example."""
    found = replace(session.found, shared=True)
    for visitor in ("mine", "yours", "nobody's"):
        demo.visitors.put(visitor, Session(found, K))
    assert press(url, demo, "Name the segments", "sky, tree", "mine")[0]
    assert told(url, demo, "yours") == ""
    assert press(url, demo, "Name the segments", "car, boat", "yours")[0]
    assert "sky" in told(url, demo, "mine") and not re.search("car|boat", told(url, demo, "mine"))
    assert "boat" in told(url, demo, "yours") and not re.search("sky|tree", told(url, demo, "yours"))
    restore = next(n for n, fn in demo.fns.items() if fn.name == "restore_words")
    for visitor, words in (("mine", "sky, tree"), ("yours", "car, boat")):
        assert fired(url, restore, [None], session=visitor)[1]["data"] == [words]
    assert told(url, demo, "nobody's") == "" and not demo.visitors.get("nobody's").edits.words


def test_clients_of_one_server_see_their_own_names_and_words_only(url, demo, session):
    mine, yours, nobodys = clients = [Client(url, verbose=False) for _ in range(3)]
    for client in clients:
        demo.visitors.put(client.session_hash, Session(session.found, K))

    def names(client) -> set:
        return {part.get("name", "none") for part in client.predict(K, api_name="/rescale_k")[1]["segments"]}

    assert {part["name"] for part in mine.predict("sky, tree", api_name="/name")["segments"]} <= {"sky", "tree", None}
    assert names(yours) == names(nobodys) == {"none"}
    yours.predict("car, boat", api_name="/name")
    assert names(mine) == {"sky", "tree"} and names(yours) <= {"car", "boat", None} and names(nobodys) == {"none"}
