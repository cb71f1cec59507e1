"""EmerDiff Explorer: the page. `python app.py` serves it; `create_demo()` builds it."""

import explorer  # isort: skip  # before torch

import importlib.util
import logging
import threading
import warnings

import gradio as gr

from explorer import (
    alike,
    api,
    code,
    comparing,
    evidence,
    folders,
    help,
    naming,
    opening,
    probing,
    rivals,
    running,
    runs,
    scoring,
    segments,
    sharing,
    together,
    uploads,
    varying,
    waiting,
)
from explorer.examples import examples, files_of_examples, warm
from explorer.guard import Guarded
from explorer.look import LOOK
from explorer.page import new_page

INTRO = """\
Left: a <span class="more">diffusion model's</span> coarse <span class="more">16 × 16</span> guess. Right: the same,
sharpened<span class="more"> by EmerDiff, without training, labels or prompt
([Namekata et al., ICLR 2024](https://arxiv.org/abs/2401.11739))</span>."""


def create_demo() -> gr.Blocks:
    """The whole page; it opens with the first example's stored result."""
    gr.set_static_paths(files_of_examples())  # shown as they are, from wherever the page is started
    with Guarded(title="EmerDiff Explorer", analytics_enabled=False, delete_cache=(3600, 86400)) as demo:
        page = new_page(demo, examples()[0])
        with gr.Row(elem_id="top"):
            gr.Markdown("# EmerDiff Explorer", elem_id="title")
            page.inputs["model"].render()
        gr.Markdown(INTRO, elem_id="intro")
        gr.Markdown(note := runs.started().note, visible=bool(note), elem_id="note")
        opening.build(page)
        with gr.Row():
            with gr.Column(scale=3, min_width=320, elem_id="side"):  # on the right, but the keyboard meets it first
                running.build(page)
                evidence.build(page)
            with gr.Column(scale=5, min_width=320, elem_id="result"):
                waiting.build(page)
                comparing.build(page)
        with gr.Tabs():
            for tab in (segments, alike, together, naming, rivals, probing, varying, scoring, sharing, code, help):
                tab.build(page)
        api.build(page)
        page.finish()
    return demo.queue(max_size=32)


def main() -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "This MCP server includes a tool that has a gr.State input")  # see guard.py
    folders.sweep(folders.UPLOADS)
    runs.pipeline("miniature")  # on ZeroGPU models are placed before the first visitor comes
    runs.started()
    if not explorer.spaces:
        threading.Thread(target=warm, daemon=True).start()
    create_demo().launch(
        **LOOK,
        max_file_size=f"{uploads.LARGEST_MEGABYTES}mb",
        strict_cors=True,
        show_error=False,
        state_session_capacity=2000,  # 150 kB each; results are not among them, see explorer/visitors.py
        mcp_server=importlib.util.find_spec("mcp") is not None,
    )


if __name__ == "__main__":
    main()
