"""Endpoints for programs: the page's work without the page. Their docstrings are what a client reads of them."""

from inspect import signature

import gradio as gr

from emerdiff import Segmentation, Words
from emerdiff.drawing import indexed_png, palette

from . import gpu, pictures
from .asking import Asked
from .folders import new_folder
from .naming import LONGEST
from .page import NETWORK, Page
from .probing import offsets
from .running import check
from .session import Edits, Gone, Session, needed
from .sharing import zipped


def build(page: Page) -> None:
    labels, summary = gr.File(visible=False), gr.JSON(visible=False)
    cells = gr.Textbox(label="Cells (row,column)", max_length=3000, visible=False)
    strength = gr.Slider(-50, 50, 10, label="Strength (±)", visible=False)
    unperturbed, perturbed = (gr.Image(format="png", interactive=False, visible=False) for _ in range(2))
    file = gr.File(visible=False)
    words = gr.Textbox("", label="Words", max_length=LONGEST, visible=False)
    endpoint = gr.Button(visible=False)
    network = {name: NETWORK[name] for name in ("concurrency_limit", "concurrency_id")}
    image, model, preset, *values, side = page.inputs
    named = {name: page.inputs[name] for name in (image, model)} | {"num_segments": page.k}
    named |= {name: page.inputs[name] for name in (*values, preset, side)}
    named["words"] = words
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
    endpoint.click(name, None, [summary, page.session], inputs_kwargs=kept | {"words": words}, api_name="name")
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
    words="",
):
    """Segment a picture with EmerDiff.

    Returns a label PNG of the picture's size whose pixel values are segment numbers, and a JSON object with the
    settings, the area and the confidence of each segment, and notes. With `words`, between commas and with synonyms as
    "sofa|couch", an image–text model names the segments among these: the JSON then also has a name, or null where the
    model is not sure, and the most probable words of each segment. During the run it streams {"stage", "done",
    "total"} in place of the JSON; the unit is one latent through the U-Net. `/rescale_k`, `/name`, `/probe` and
    `/export` continue from this result for the same client.
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
    edits = Edits(words=str(Words.of(words)) if words.strip() else "")

    def tell(_, progress):
        return None, {"stage": progress.stage, "done": progress.done, "total": progress.total}, gr.skip()

    found = yield from gpu.watched(gpu.find(Asked(image, model, preset, values), None), tell)
    session = Session.of(found, num_segments, edits=edits)
    summary = session.summary() if edits.words else found.segmentation.summary()
    yield label_file(found.segmentation, found.name), summary, session


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
    return label_file(session.segmentation, session.found.name), session.summary(), session


def name(session, words):
    """Name the segments of this client's last result among `words`, by an image–text model.

    `words` stand between commas, with synonyms as "sofa|couch". Returns the JSON object of the segments, as `/segment`
    does, with a name, or null where the model is not sure, and the most probable words of each. `/export` then has the
    names, too.
    """
    session = asked_for(session).ask(words)
    return session.summary(), session


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
