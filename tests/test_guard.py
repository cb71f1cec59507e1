"""What comes in through any event or endpoint, as bare HTTP sends it: what is allowed, refused, and said.

The server is started from a folder that is not the page's.
"""

import asyncio
import inspect
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import httpx
import numpy as np
import pytest
from conftest import shows
from gradio.state_holder import SessionState
from PIL import Image
from test_app import QUICK, served

import app
from emerdiff.miniature.scenes import draw_scene
from explorer import guard
from explorer.examples import examples
from explorer.folders import UPLOADS
from explorer.strip import Strip

META = {"_type": "gradio.FileData"}
HERE = {"path": str(examples()[0].picture)}  # an example's picture


@pytest.fixture(scope="module")
def demo():
    return app.create_demo()


@pytest.fixture(scope="module")
def url(demo, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        with served(demo, state_session_capacity=8) as address:
            yield address


def upload(url: str, file) -> dict:
    """As the page uploads a file: what it then sends as an input."""
    with file.open("rb") as stream:
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": (file.name, stream)}, timeout=30)
    return {"path": answer.json()[0], "meta": META}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("picture") / "street & “sea”.png"
    Image.fromarray(draw_scene(1, 64).image).save(file)
    return file


@pytest.fixture(scope="module")
def visitor(url, picture):
    """The key of one who has a result."""
    assert asked(url, "segment", upload(url, picture), *values(num_segments=4), session="visitor")[0]
    return "visitor"


def asked(url: str, endpoint: str, *data, session: str | None = None) -> tuple[bool, object]:
    """Whether an endpoint did what it was asked for, and its last answer or its error.

    NaN and infinities are no JSON, but sent and read by many.
    """
    body = json.dumps({"data": data} | ({"session_hash": session} if session else {}))
    where, headers = f"{url}gradio_api/call/{endpoint}", {"content-type": "application/json"}
    event = httpx.post(where, content=body, headers=headers, timeout=30).json()["event_id"]
    kind, answer = httpx.get(f"{where}/{event}", timeout=120).text.split("event: ")[-1].split("\ndata: ", 1)
    return kind == "complete", json.loads(answer) if kind == "complete" else json.loads(answer)["error"]


def values(**changes) -> list:
    return [*(QUICK | {"preset": "preview", "modulation_timestep": 1, "num_segments": 2} | changes).values()]


def fired(url: str, fn: int, data: list, event_data=None, trigger=None, session: str = "fired") -> tuple[bool, object]:
    """As `asked`, of any event of the page, as a browser fires it."""
    body = {"data": data, "fn_index": fn, "session_hash": session, "event_data": event_data, "trigger_id": trigger}
    httpx.post(f"{url}gradio_api/queue/join", json=body, timeout=30).raise_for_status()
    with httpx.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": session}, timeout=120) as lines:
        for line in lines.iter_lines():
            if line.startswith("data:") and (message := json.loads(line[5:]))["msg"] == "process_completed":
                return message["success"], message["output"].get("error", message["output"])
    raise AssertionError("no answer")


# --- Files


def strangers(tmp_path) -> dict:
    """Files of the server that nobody uploaded, those that are not there, and what is no file."""
    picture = tmp_path / "secret.png"
    Image.fromarray(draw_scene(2, 128).image).save(picture)
    (tmp_path / "link.png").symlink_to(picture)
    paths = {
        "a picture": str(picture),
        "a link to it": str(tmp_path / "link.png"),
        "not there": str(tmp_path / "nothing.png"),
        "a folder": str(tmp_path),
        "the folder of uploads": str(UPLOADS),
        "beside it": str(UPLOADS / ".." / "secret.png"),
        "out of it": f"{UPLOADS}/../../../../../../../../..{picture}",
        "not an upload": str(UPLOADS / "0" / "nothing.png"),
        "beside an example": str(examples()[0].picture.with_name("examples.json")),
        "a device": "/dev/zero",
        "relative": "app.py",
        "a NUL": "a\0.png",
        "too long": "a" * 5000,
        "a URL": "http://127.0.0.1:1/a.png",
        "a file URL": f"file://{picture}",
        "empty": "",
    }
    files = {name: {"path": path} for name, path in paths.items()}
    files |= {f"{name}, as an upload": file | {"meta": META} for name, file in files.items()}
    files["a stream"] = files["a picture"] | {"meta": META, "is_stream": True}
    files["by URL"] = {"path": None, "url": paths["a file URL"]}
    files["inline"] = {"path": None, "url": "data:image/png;base64,AAAA"}
    return files | {"text": "secret.png", "a number": 7, "a list": [files["a picture"]], "true": True, "nothing": {}}


def test_only_uploads_and_examples_can_be_opened_and_all_others_get_one_sentence(url, demo, visitor, tmp_path):
    assert asked(url, "segment_once", HERE, *values())[0]  # the visitor's upload could be, too
    of_truth = next(n for n, fn in demo.fns.items() if fn.name == "score")
    truth = demo.fns[of_truth].inputs[-1]
    of_drop = next(n for n, fn in demo.fns.items() if fn.name == "dropped")
    inputs = demo.fns[of_drop].inputs
    (strip,) = (block for block in inputs if isinstance(block, Strip))
    said = set()
    for name, file in strangers(tmp_path).items():
        done, error = asked(url, "segment", file, *values())
        assert not done, name
        said.add(error)
        done, error = fired(url, of_truth, [None, file], trigger=truth._id)
        assert not done, name
        said.add(error)
        sent = [file if block is strip else None if block.stateful else block.value for block in inputs]
        done, error = fired(url, of_drop, sent, trigger=strip._id)
        assert not done, name
        said.add(error)
    said.add(asked(url, "segment_once", file, *values())[1])
    assert said == {guard.NOT_UPLOADED}


def test_an_upload_keeps_its_name_in_what_leaves(url, visitor):
    done, answer = asked(url, "rescale_k", 2, session=visitor)
    assert done and answer[0]["path"].endswith("/street & “sea”_labels.png")
    done, answer = asked(url, "export", session=visitor)
    assert done and answer[0]["path"].endswith("/street & “sea”_emerdiff.zip")


def test_a_picture_that_no_browser_shows_is_shown_as_the_network_sees_it_and_stands_for_its_upload(
    url, demo, tmp_path
):
    deep = np.linspace(0, 4095, 128 * 96).reshape(96, 128).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "scan.tif")
    dropped = next(n for n, fn in demo.fns.items() if fn.name == "dropped")
    inputs = [upload(url, tmp_path / "scan.tif"), QUICK["model"], "preview", 41, 10, 1, 0.8, 42, 256]
    done, output = fired(url, dropped, [None, None, 10, *inputs, "slider", []])
    place = [component.label for component in demo.fns[dropped].outputs].index("Picture")
    shown = output["data"][place]
    assert done and shown["path"].endswith("/scan.tif.png")
    assert Path(shown["path"]).parents[1] == UPLOADS  # where what is old is removed
    served_png = httpx.get(f"{url}gradio_api/file={shown['path']}", timeout=30)
    assert served_png.headers["content-type"] == "image/png"
    (tmp_path / "shown.png").write_bytes(served_png.content)
    levels = np.asarray(Image.open(tmp_path / "shown.png"))
    assert levels.min() == 0 and levels.max() == 255
    done, answer = asked(url, "segment", shown, *values())
    assert done and answer[1]["original_size"] == [128, 96]
    assert re.search(r"values .*lie between \d+ and 4,\d+; they were stretched", answer[1]["notes"][0])


# --- Values

CLICK = {"index": [9e9, -1], "value": 1, "row_value": 3}
NONSENSE = (None, "", "many", [], [3], {}, {"a": 1}, True, -1, 1e30, 10**400, float("nan"), float("inf"), "x" * 10_000)
WHOLE = {
    "num_segments": "Segments (k) must be a whole number from 2 to 30",
    "modulation_timestep": "Timestep must be a whole number from 1 to 981",
    "feature_timestep": "Feature timestep must be a whole number from 0 to 999",
    "seed": "Seed must be a whole number from 0 to 9223372036854775807",
}
SAID = WHOLE | {
    "model": "Model must be one of Miniature",
    "strength": "Perturbation strength must be a number from 0 to 50",
    "smoothing": "Smoothing (pixels) must be a number from 0 to 5",
    "preset": "Quality must be one of exact, fast, preview",
    "side": "Detail must be one of 256, 384, 512, 768",
}


def test_a_wrong_value_of_any_parameter_of_any_endpoint_gets_a_sentence_with_what_is_allowed(url, visitor):
    cases = [
        ("segment", [HERE, *values(**{name: bad})], SAID[name])
        for name in SAID
        for bad in (*NONSENSE, *([2.5] if name in WHOLE else []))
    ]
    cases += [("segment_once", [HERE, *values(**{name: "many"})], said) for name, said in SAID.items()]
    cases += [("rescale_k", [bad], WHOLE["num_segments"]) for bad in (*NONSENSE, 2.5, 31)]
    cases += [("probe", ["1,1", bad], "Strength (±) must be a number from -50 to 50") for bad in NONSENSE if bad != -1]
    not_text = [bad for bad in NONSENSE[3:] if not isinstance(bad, str)] + ["x" * 10_000]
    cases += [("probe", [bad, 10], "Cells (row,column) must be text of at most 3000") for bad in not_text]
    not_text[-1] = "x" * 100_000
    cases += [("segment", [HERE, *values(words=bad)], "Words must be text of at most") for bad in not_text]
    cases += [("name", [bad], "Words must be text of at most") for bad in not_text]
    cases += [("name", ["many"], "Give at least two words")]
    cases = [(endpoint, data, re.escape(said)) for endpoint, data, said in cases]
    no_cells = (None, "", "many", "1", "99,9", "1,1,1", "-1,0")
    cases += [("probe", [bad, 10], "Choose cells|Write cells") for bad in no_cells]
    for endpoint, data, said in cases:
        done, error = asked(url, endpoint, *data, session=visitor)
        assert not done and isinstance(error, str) and re.match(said, error), (data, error)
    assert asked(url, "rescale_k", 2, session=visitor)[0]


def test_no_event_of_the_page_fails_without_a_word_whatever_it_is_sent(url, demo, visitor):
    """All inputs of each event are nonsense, and what is clicked is too."""
    silent = []
    for n, fn in demo.fns.items():
        free = [i for i, component in enumerate(fn.inputs) if not component.stateful]
        if not free or fn.js and fn.fn is None:
            continue
        for bad, clicked in (("nonsense", None), (None, {"index": "x", "value": None}), ([["a"]], CLICK)):
            data = [None if component.stateful else bad for component in fn.inputs]
            done, error = fired(url, n, data, clicked, fn.targets[0][0], session=visitor)
            if not done and not (isinstance(error, str) and len(error) > 20):
                silent.append((fn.name, bad, error))
    assert not silent
    assert asked(url, "rescale_k", 2, session=visitor)[0]


def test_too_few_values_get_a_sentence(url):
    for given in ([], [HERE]):
        done, error = asked(url, "segment", *given)
        assert not done and re.fullmatch(rf"\d+ values are needed, not {len(given)}", error)


# --- Errors


def test_two_hundred_bad_requests_in_a_row_leave_the_server_serving(url, visitor):
    for _ in range(200):
        done, error = asked(url, "probe", "nonsense", 10, session=visitor)
        assert not done and re.match("Choose cells|Write cells", error)
    assert asked(url, "rescale_k", 2, session=visitor)[0]


def test_what_goes_wrong_within_an_event_is_told_and_logged_but_not_shown(url, demo, monkeypatch, caplog):
    able = next(n for n, fn in demo.fns.items() if fn.name == "able")
    data = [None, None, None, None, QUICK["model"], "exact", 41, 10, 1, 0.8, 42, 256]
    for error, said in ((RuntimeError("/home/me/secret"), guard.UNEXPECTED), (OSError(28, "disk"), guard.UNWRITABLE)):

        def broken(error=error, **_):
            raise error

        monkeypatch.setattr(demo.fns[able], "fn", broken)
        done, told = fired(url, able, data)
        assert not done and told == said and "secret" not in told
        assert str(error) in caplog.text


def test_an_output_that_cannot_be_served_is_told(url, demo, monkeypatch, tmp_path):
    copied = next(n for n, fn in demo.fns.items() if fn.name == "zipped")
    outside = "/etc/hostname"
    monkeypatch.setattr(demo.fns[copied], "fn", lambda *_: outside)
    done, told = fired(url, copied, [None])
    assert not done and isinstance(told, str) and len(told) > 20 and "/etc" not in told


# --- Results


def test_changes_of_one_visitor_that_come_at_once_are_all_kept(url, demo, visitor):
    """As from two hands on one page: each begins with what the last one left."""
    rename = next(n for n, fn in demo.fns.items() if fn.name == "edit" and fn.targets[0][0] == button(demo, "Rename"))
    order = [component.label for component in demo.fns[rename].inputs]

    assert asked(url, "rescale_k", 4, session=visitor)[0]
    for i in range(4):
        values = {"Chosen segments": [i], "Name": f"Name {i}", "View": "masks", "Opacity": 0.5, "Outlines": True}
        body = {"data": [values.get(label) for label in order], "fn_index": rename, "session_hash": visitor}
        httpx.post(f"{url}gradio_api/queue/join", json=body, timeout=30).raise_for_status()
    with httpx.stream("GET", f"{url}gradio_api/queue/data", params={"session_hash": visitor}, timeout=60) as lines:
        messages = (json.loads(line[5:]) for line in lines.iter_lines() if line.startswith("data:"))
        done = (message["success"] for message in messages if message["msg"] == "process_completed")
        assert all(next(done) for _ in range(4))
    assert demo.visitors.get(visitor).edits.names == {i: f"Name {i}" for i in range(4)}


def button(demo, text: str) -> int:
    return next(n for n, block in demo.blocks.items() if isinstance(block, gr.Button) and block.value == text)


def test_whatever_works_the_network_waits_in_one_queue(demo):
    works = [fn for fn in demo.fns.values() if inspect.isgeneratorfunction(fn.fn)]
    for_programs = {"probe", "segment", "segment_once"}
    assert {fn.name for fn in works} == {"run", "recompute", "perturb", "perturb_cells", "run_rivals", *for_programs}
    assert {(fn.concurrency_id, fn.concurrency_limit) for fn in works} == {("network", 1)}



def test_a_result_stays_when_many_others_fail_and_who_had_to_make_room_is_told(url, demo, visitor, monkeypatch):
    for i in range(20):  # gradio itself forgets the ninth visitor here
        assert not asked(url, "rescale_k", 3, session=f"failing{i}")[0]
    done, answer = asked(url, "rescale_k", 3, session=visitor)
    assert done and len(answer[1]["segments"]) == 3
    monkeypatch.setattr(demo.visitors, "_budget", 1)
    assert asked(url, "segment", HERE, *values(), session="another")[0]
    done, error = asked(url, "rescale_k", 2, session=visitor)
    assert not done and "make room" in error and "call /segment again" in error


def test_pictures_of_examples_are_served_from_wherever_the_page_was_started(url):
    for example in examples():
        answer = httpx.get(f"{url}gradio_api/file={example.picture.resolve()}", timeout=30)
        assert answer.status_code == 200 and answer.content == example.picture.read_bytes()
    beside = examples()[0].picture.with_name("examples.json")
    assert httpx.get(f"{url}gradio_api/file={beside.resolve()}", timeout=30).status_code in (403, 404)


def test_in_a_browser_examples_open_and_an_error_of_any_event_is_seen(browser, url, demo, monkeypatch):
    def broken(**_):
        raise RuntimeError

    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    page.locator("#strip").get_by_role("radio").nth(1).click()
    shows(page, f"k = {examples()[1].k}, timestep", timeout=30_000)
    page.wait_for_function("[...document.images].filter(i => i.naturalWidth > 200).length >= 4")
    for fn in demo.fns.values():
        if fn.name == "start":
            monkeypatch.setattr(fn, "fn", broken)
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_text(guard.UNEXPECTED).wait_for(timeout=30_000)
    page.close()


def test_what_ends_without_a_word_leaves_all_as_it_is():
    def nothing():
        yield from ()

    with guard.Guarded() as demo:
        gr.Button().click(nothing, None, [gr.Textbox("here"), gr.Textbox("there")])
    event = demo.process_api(0, [], SessionState(demo), session_hash="visitor")
    with ThreadPoolExecutor(1) as thread:  # the browser of other tests has a loop running in this one
        answer = thread.submit(asyncio.run, event).result()
    assert answer["data"] == 2 * [gr.skip()]
