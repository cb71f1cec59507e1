"""Endpoints for programs: the page's work without the page. Their docstrings are what a client reads of them."""

from inspect import signature

import gradio as gr

from emerdiff import Segmentation
from emerdiff.drawing import indexed_png, palette

from . import gpu, pictures
from .asking import Asked
from .folders import new_folder
from .page import NETWORK, Page
from .probing import offsets
from .running import check
from .session import Gone, Session, needed
from .sharing import zipped


def build(page: Page) -> None:
    labels, summary = gr.File(visible=False), gr.JSON(visible=False)
    cells = gr.Textbox(label="Cells (row,column)", max_length=3000, visible=False)
    strength = gr.Slider(-50, 50, 10, label="Strength (±)", visible=False)
    unperturbed, perturbed = (gr.Image(format="png", interactive=False, visible=False) for _ in range(2))
    file = gr.File(visible=False)
    endpoint = gr.Button(visible=False)
    network = {name: NETWORK[name] for name in ("concurrency_limit", "concurrency_id")}
    image, model, preset, *values, side = page.inputs
    named = {name: page.inputs[name] for name in (image, model)} | {"num_segments": page.k}
    named |= {name: page.inputs[name] for name in (*values, preset, side)}
    kept = {"session": page.session}

    endpoint.click(
        segment, None, [labels, summary, page.session], inputs_kwargs=named, api_name="segment", **network
    )
    endpoint.click(
        segment_once, None, [labels, summary], inputs_kwargs=named, api_name="segment_once", **network
    )
    endpoint.click(
        rescale_k, None, [labels, summary, page.session], inputs_kwargs=kept | {"k": page.k}, api_name="rescale_k"
    )
    endpoint.click(
        probe,
        None,
        [unperturbed, perturbed],
        inputs_kwargs=kept | {"cells": cells, "strength": strength},
        api_name="probe",
        **network,
    )
    endpoint.click(export, page.session, file, api_name="export")


def segment(
    image,
    model,
    num_segments,
    modulation_timestep,
    strength,
    feature_timestep,
    smoothing,
    seed,
    preset="exact",
    side=256,
):
    """Segment a picture with EmerDiff.

    Returns a label PNG of the picture's size whose pixel values are segment numbers, and a JSON object with the
    settings, the area and the confidence of each segment, and notes. During the run it streams {"stage", "done",
    "total"} in place of the JSON; the unit is one latent through the U-Net. `/rescale_k`, `/probe` and `/export`
    continue from this result for the same client.
    """
    values = {
        "num_segments": num_segments,
        "modulation_timestep": modulation_timestep,
        "strength": strength,
        "feature_timestep": feature_timestep,
        "smoothing": smoothing,
        "seed": seed,
        "side": side,
    }
    check(image, model, preset, values)

    def tell(_, progress):
        return None, {"stage": progress.stage, "done": progress.done, "total": progress.total}, gr.skip()

    found = yield from gpu.watched(gpu.find(Asked(image, model, preset, values), None), tell)
    yield label_file(found.segmentation, found.name), found.segmentation.summary(), Session.of(found, num_segments)


def segment_once(*asked, **named):
    """Segment a picture with EmerDiff and keep nothing: as `/segment`, for callers without a session.

    MCP clients have none: gradio 6.31 cannot return a result together with a state to them.
    """
    for labels, summary, _ in segment(*asked, **named):
        yield labels, summary


segment_once.__signature__ = signature(segment)  # gradio tells callers of the same parameters


def rescale_k(session, k):
    """Reduce this client's last result to fewer segments, without running the network.

    Returns the label PNG at the size of the picture and the JSON object of the segments, as `/segment` does.
    """
    session = asked_for(session).cut(int(k))
    return label_file(session.segmentation, session.found.name), session.segmentation.summary(), session


def probe(session, cells, strength):
    """Perturb the network in some cells of the low-resolution grid of this client's last picture.

    `cells` are written "row,column row,column ...", counted from 0. Returns two PNGs at the size that the network saw:
    the picture painted again unperturbed, and perturbed.
    """
    work = gpu.paint(asked_for(session), offsets(session, cells, strength))
    painted = yield from gpu.watched(work, lambda *_: (None, None))
    size = session.segmentation.image.shape[1::-1]
    yield tuple(pictures.save_painted(session, painted, ("unperturbed", "perturbed"), size))


def export(session):
    """This client's last segmentation as a zip: label PNG, overlay, cut-outs, COCO JSON, NPZ and settings."""
    return zipped(asked_for(session))


def asked_for(session: Session | Gone | None) -> Session:
    return needed(
        session,
        "there is no result yet: call /segment first, with the same client",
        "the result was removed to make room for others: call /segment again",
    )


def label_file(result: Segmentation, name: str) -> str:
    path = new_folder() / f"{name}_labels.png"
    indexed_png(result.labels_at_original_size, palette(result.settings.num_segments)).save(path)
    return str(path)
