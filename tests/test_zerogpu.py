"""The page as on ZeroGPU, where the network can be used only in processes that are forked for an event."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from conftest import ready, row, set_slider, shows, unfold
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from emerdiff.miniature.scenes import draw_scene

HERE = Path(__file__).parent / "zerogpu"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    environment = os.environ | {
        "EMERDIFF_CACHE": str(tmp_path_factory.mktemp("cache")),
        "OMP_NUM_THREADS": "1",  # threads do not outlive a fork
    }
    server = subprocess.Popen(
        [sys.executable, HERE / "serve.py"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield server.stdout.readline().strip()
    server.communicate()
    assert server.returncode == 0


def test_endpoints_compute_in_processes_of_their_own_and_go_on_from_what_came_back(url, tmp_path):
    picture = tmp_path / "picture.png"
    Image.fromarray(draw_scene(1, 128).image[:96]).save(picture)
    client = Client(url, verbose=False)
    labels, summary = client.predict(
        handle_file(str(picture)), num_segments=6, modulation_timestep=41, preset="fast", api_name="/segment"
    )
    assert np.asarray(Image.open(labels)).shape == (96, 128) and summary["settings"]["num_segments"] == 6
    assert client.predict(3, api_name="/rescale_k")[1]["settings"]["num_segments"] == 3
    before, after = (np.asarray(Image.open(file)) for file in client.predict("1,1", 20, api_name="/probe"))
    assert (before != after).any()
    with ZipFile(client.predict(api_name="/export")) as archive:
        assert any(name.endswith("_labels.png") for name in archive.namelist())


def test_what_is_refused_is_refused_with_its_sentence(url, tmp_path):
    client = Client(url, verbose=False)
    with pytest.raises(AppError, match="call /segment first"):
        client.predict("1,1", 10, api_name="/probe")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(AppError, match="not a picture"):
        client.predict(handle_file(str(tmp_path / "text.png")), api_name="/segment")


def test_the_page_explores_runs_recomputes_paints_and_probes(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(url)
    ready(page)  # the first example's full result was not at hand
    unfold(page)
    page.get_by_label("Preview").click()
    page.locator("#hint").get_by_text("of GPU time").wait_for()
    set_slider(page, "Segments (k)", 3)
    set_slider(page, "Timestep", 41)
    page.get_by_role("button", name="Run", exact=True).click()
    shows(page, "k = 3, timestep 41", timeout=120_000)
    page.get_by_role("button", name="Recompute at this k").click()
    page.wait_for_function(
        "!/Cut from/.test(document.querySelector('#summary').textContent)", timeout=60_000
    )
    row(page, "Segment 1").click()
    page.get_by_text("Segment 1: ").wait_for()
    page.get_by_role("button", name="Paint it perturbed").click()
    page.locator("#painted").get_by_text("I⁺").first.wait_for(timeout=60_000)
    page.get_by_role("tab", name="Probe").click()
    page.get_by_label("Cells (row,column)").fill("3,3 3,4")
    page.get_by_role("button", name="Perturb these cells").click()
    page.locator("#probed").get_by_text("Perturbed").first.wait_for(timeout=60_000)
    page.close()
