"""The page as an MCP server, with a real client: which tools work without a session, and that none tells of others."""

import ast
import asyncio
import base64
import warnings

import httpx
import pytest
from PIL import Image
from test_app import QUICK, served

import app
from emerdiff.miniature.scenes import draw_scene
from explorer import guard

mcp = pytest.importorskip("mcp")
streamable_http = pytest.importorskip("mcp.client.streamable_http")

ARGUMENTS = {"model": QUICK["model"], "num_segments": 4, "modulation_timestep": 1, "preset": "preview"}


@pytest.fixture(scope="module")
def url():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This MCP server includes a tool that has a gr.State input")
        with served(app.create_demo(), mcp_server=True) as address:
            yield address


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    file = tmp_path_factory.mktemp("picture") / "a sea & sky.png"
    Image.fromarray(draw_scene(1, 64).image).save(file)
    return file


@pytest.fixture(scope="module")
def inline(picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def asked(url: str, *calls: tuple[str, dict]) -> list[tuple[bool, str]]:
    """What a client gets that makes these calls in one connection: whether each failed, and its text."""

    async def connected():
        async with (
            streamable_http.streamablehttp_client(f"{url}gradio_api/mcp/") as (read, write, _),
            mcp.ClientSession(read, write) as session,
        ):
            await session.initialize()
            answers = [await session.call_tool(tool, arguments) for tool, arguments in calls]
            return [(answer.isError, answer.content[0].text) for answer in answers]

    return asyncio.run(connected())


def names(text: str) -> set:
    _, summary = ast.literal_eval(text)
    return {part["name"] for part in summary["segments"]}


def test_segments_are_named_in_a_call_and_anew_in_the_next(url, picture, inline):
    with picture.open("rb") as file:  # as `gradio upload-mcp` does it
        [uploaded] = httpx.post(f"{url}gradio_api/upload", files={"files": (picture.name, file)}, timeout=30).json()
    address = f"{url}gradio_api/file={uploaded}".replace(" ", "%20").replace("&", "%26")
    given = ((inline, "sky|cloud, water, field"), (address, "car, boat"))
    calls = [("segment_once", ARGUMENTS | {"image": image, "words": words}) for image, words in given]
    for (failed, text), words in zip(asked(url, *calls), ({"sky", "water", "field"}, {"car", "boat"}), strict=True):
        assert not failed, text
        assert words & names(text) and names(text) <= words | {None}


def test_no_tool_continues_from_a_result_that_may_be_anothers(url, inline):
    others = [("rescale_k", {"k": 2}), ("name", {"words": "sky, car"}), ("probe", {"cells": "1,1"}), ("export", {})]
    first = asked(url, ("segment_once", ARGUMENTS | {"image": inline}), ("segment", ARGUMENTS | {"image": inline}))
    assert [failed for failed, _ in first] == [False, True]
    for failed, text in (first[1], *asked(url, *others), *asked(url, *others)):
        assert failed and guard.NO_SESSION in text


def test_nothing_is_fetched_from_elsewhere(url, tmp_path):
    strange = ["http://127.0.0.1:1/x.png", f"{url}gradio_api/file=/etc/passwd", f"{url}gradio_api/file="]
    calls = [("segment_once", ARGUMENTS | {"image": image}) for image in strange]
    assert {text for failed, text in asked(url, *calls) if failed} == {guard.NOT_UPLOADED}
