"""A session as pictures, a table and words."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

import emerdiff
from emerdiff.decoding import decode
from emerdiff.drawing import overlay, palette
from emerdiff.exporting import Legend
from emerdiff.masks import upsample_nearest
from emerdiff.recut import CUT_FROM
from emerdiff.studies.scoring import accuracy, hungarian, majority, miou, oracle, tabulate

from . import viewer
from .component import data_url
from .folders import new_folder
from .runs import label_of
from .session import FINE, Session
from .viewer import Pane

VIEWS = ("slider", "side by side", "masks", "confidence", "coarse map", "picture")
SWATCH = "<span id='segment-{}' style='color:rgb({},{},{})'>■</span>"
HEAT = (255 * np.array(matplotlib.colormaps["magma"].colors)).round().astype(np.uint8)  # (256, 3), dark to bright
ANOTHER = "Click another segment to look at that one."
EVIDENCE_SIDE = 400  # pixels, of the longer side of its two pictures
LEVELS = 127.5  # of 255, to 1 of a response, which is a change of pixels in [-1, 1]
FIGURE_KS = (5, 10, 15, 20, 30)
CHOOSE = "Choose a segment: click on a picture or on a row of the table, or pick it in the list."


@dataclass(frozen=True, eq=False)
class Layers:
    """What the comparing views are drawn from, all (H, W) of the picture as it is shown."""

    name: str
    """The name that its files get."""
    shown: Image.Image
    labels: np.ndarray
    naive_labels: np.ndarray
    coarse_labels: np.ndarray
    """(h, w), of the grid."""
    legend: Legend
    confidence: np.ndarray | None = None
    """(H, W) as the network saw the picture."""
    ids: tuple[int, ...] | None = None
    """Of the segments, where they can be chosen."""


def layers(session: Session) -> Layers:
    result = session.segmentation
    return Layers(
        session.found.name,
        session.found.shown,
        session.labels,
        session.naive_labels,
        result.coarse_labels,
        session.legend,
        result.confidence,
        session.ids,
    )


def sketched(sketch: emerdiff.Segmentation, alone: Layers, k: int) -> Layers:
    """Of a run that goes on: what it has found so far of a picture, cut to `k`."""
    cuts = emerdiff.cuts(sketch)
    groups = cuts[min(k, len(cuts) - 1)]
    size = alone.shown.size[::-1]
    labels, naive = (upsample_nearest(groups[part], size) for part in (sketch.labels, sketch.naive_labels))
    return Layers(alone.name, alone.shown, labels, naive, groups[sketch.coarse_labels], unnamed(k), sketch.confidence)


def alone(name: str, shown: Image.Image) -> Layers:
    """A picture that is not segmented."""
    nothing = np.zeros(shown.size[::-1], int)
    return Layers(name, shown, nothing, nothing, np.zeros((1, 1), int), unnamed(1))


def unnamed(k: int) -> Legend:
    return Legend(tuple(f"Segment {i}" for i in range(k)), palette(k))


def view_of(of: Layers, view: str) -> dict:
    """What a viewer shows in a view of `VIEWS`."""
    return viewer.shown(panes(of, view), of.name, "divider" if view == "slider" else "row")


def panes(of: Layers, view: str) -> tuple[Pane, ...]:
    """The panes of a view of `VIEWS`: two to compare, or one."""

    def pane(title, labels, *, picture=of.shown, fill=None):
        alt = f"{title}: the picture, covered by segments that the table lists" if fill is None else title
        return Pane(title, alt, picture, labels, of.legend, of.ids, fill)

    ours = pane("EmerDiff", of.labels)
    match view:
        case "slider" | "side by side":
            return pane("Coarse guess", of.naive_labels), ours
        case "coarse map":
            return (pane("The network's coarse map", upsample_nearest(of.coarse_labels, of.labels.shape), fill=1),)
        case "confidence" if of.confidence is not None:
            drawn = heat(of.confidence, of.shown.size, most=1)
            return (pane("Confidence: bright is sure", of.labels, picture=drawn, fill=0),)
        case "picture":
            return (pane("The picture", of.labels if of.ids else None, fill=0),)
        case _:
            return (ours,)


def save(picture: np.ndarray, name: str) -> str:
    """A PNG of the picture: gradio's own compression takes five times as long, for files a tenth smaller."""
    path = new_folder() / f"{name}.png"
    Image.fromarray(picture).save(path, compress_level=1)
    return str(path)


def drawing(picture: np.ndarray, alt: str, caption: str) -> str:
    """A small picture (H, W, 3) as an HTML figure; the `caption` is HTML."""
    height, width = picture.shape[:2]
    source = data_url(Image.fromarray(picture), "JPEG", quality=90, subsampling=0)
    image = f'<img src="{source}" alt="{alt}" width="{width}" height="{height}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def map_of(change: np.ndarray, size: tuple[int, int], alt: str, caption: str) -> str:
    """A map of a `change`, (H, W) levels of 255, at `size` (width, height), with its colour bar; as `drawing`."""
    return drawing(heat(change, size), alt, caption + colour_bar(change.max(), "levels of 255"))


def heat(values: np.ndarray, size: tuple[int, int], most: float | None = None) -> np.ndarray:
    """Values (H, W) >= 0 as colours at `size` (width, height); the brightest is `most`, or their largest."""
    values = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
    scaled = (values / max(most or values.max(), 1e-6)).clip(0, 1)
    return HEAT[(255 * scaled).round().astype(np.uint8)]


def colour_bar(most: float, unit: str) -> str:
    """The colours of `heat` and the values that they stand for, 0 to `most` in a `unit`, as HTML."""
    stops = ", ".join("rgb({},{},{})".format(*colour) for colour in HEAT[::51].tolist())
    numbers = "".join(f"<span>{number:.3g}</span>" for number in (0, most / 2, most))
    return (
        f'<div class="colour-bar"><div style="background: linear-gradient(to right, {stops})"></div>'
        f"<p>{numbers}</p><p>{unit}</p></div>"
    )


def cells(picture: Image.Image, chosen: np.ndarray) -> np.ndarray:
    """The picture with the low-resolution grid; its `chosen` (h, w) cells are orange and framed, the others dark."""
    image = np.asarray(picture).astype(np.float32)
    inside = upsample_nearest(chosen, image.shape[:2])
    for axis, count in enumerate(chosen.shape):
        lines = (np.arange(1, count) * image.shape[axis]) // count
        index = (lines,) if axis == 0 else (slice(None), lines)
        image[index] = 0.75 * image[index] + 0.25 * 255
    if chosen.any():
        image[~inside] *= 0.4
    image[inside] = 0.55 * image[inside] + 0.45 * palette(2)[1]
    edge = inside & ~binary_erosion(inside, iterations=2, border_value=1)
    image[edge] = 255
    image[binary_dilation(inside, iterations=2) & ~inside] = 0
    return image.round().astype(np.uint8)


def painted(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture (H, W, 3) that the network painted, at `size` (width, height)."""
    whole = Image.fromarray(picture.clip(0, 255).round().astype(np.uint8))
    return np.asarray(whole.resize(size, Image.Resampling.BICUBIC))


def change(session: Session, ids: Iterable[int]) -> np.ndarray:
    """(H, W) >= 0, levels of 255: how much each pixel changes as the segments are perturbed together, over RGB."""
    responses = session.segmentation.responses[np.isin(session.ids, list(ids))]
    return LEVELS * np.linalg.norm(responses.astype(np.float32).sum(0), axis=0)


def interesting(result: emerdiff.Segmentation) -> int:
    """The number of the segment that shows best what the method does.

    Of those of a middling size the surest, less what lies at the picture's border: rather an object than its ground.
    """
    edge = np.concatenate([result.labels[0], result.labels[-1], result.labels[:, 0], result.labels[:, -1]])
    border = np.bincount(edge, minlength=len(result.responses)) / len(edge)

    def worth(number: int) -> tuple[bool, float]:
        part = parts[number]
        return 0.02 <= part["share"] <= 0.3, (part["mean_confidence"] or 0) - border[number]

    parts = result.summary()["segments"]
    return max(range(len(parts)), key=worth)


def save_painted(
    session: Session, pictures: np.ndarray, whats: Iterable[str], size: tuple[int, int]
) -> list[str]:
    """Files of what the network painted (b, H, W, 3), at `size` (width, height)."""
    name = session.found.name
    return [save(painted(picture, size), f"{name}_{what}") for picture, what in zip(pictures, whats, strict=True)]


def table(session: Session) -> list[list]:
    return rows(session.segmentation.summary(), session.legend, session.ids)


def rows(summary: dict, legend: Legend, ids: Iterable[int]) -> list[list]:
    """A row for each segment: colour, name, share of the pixels, by naive upsampling, confidence; all in per cent.

    Numbers are numbers, so that sorting by them is sorting by size.
    """
    rows = []
    for n, (i, part) in enumerate(zip(ids, summary["segments"], strict=True)):
        sure = part["mean_confidence"]
        rows.append(
            [
                *first_columns(legend, n, i),
                round(100 * part["share"], 1),
                round(100 * part["naive_share"], 1),
                None if sure is None else round(100 * sure),
            ]
        )
    return rows


def first_columns(legend: Legend, n: int, i: int) -> tuple[str, str]:
    """Of the row of segment n, whose id is i: colour and name."""
    name = legend.names[n]
    return SWATCH.format(i, *legend.colours[n].tolist()), f"{name} (hidden)" if n in legend.hidden else name


def segment_of_row(row: object) -> int | None:
    """The id of the segment of a row of `table`, as a browser sends it back."""
    found = re.match(r"<span id='segment-(\d{1,6})'", str(row[0])) if isinstance(row, list) and row else None
    return int(found[1]) if found else None


def facts(session: Session, ids: Iterable[int]) -> str:
    """Share, cells and confidence of segments taken together, in words."""
    chosen = np.isin(session.ids, list(ids))[session.segmentation.labels]
    coarse = session.cells_of(ids)
    if not coarse.any():
        return CHOOSE
    names = ", ".join(session.name(i) for i in sorted(ids))
    sure = session.segmentation.confidence[chosen].mean() if chosen.any() else 0
    return told(names, chosen.mean(), coarse.sum(), sure)


def told(names: str, share: float, cells: int, sure: float) -> str:
    return f"{names}: {share:.1%} of the pixels, {cells} cells, mean confidence {sure:.0%}."


def examined(session: Session, chosen: Sequence[int]) -> list[int]:
    """The ids of the segments that are looked at: the `chosen` ones or, while there are none, an interesting one."""
    there = [i for i in chosen if i in session.ids]
    return there or [session.ids[interesting(session.segmentation)]]


def evidence_of(session: Session, chosen: Sequence[int]) -> str:
    """`evidence` of the segments that are looked at."""
    ids = examined(session, chosen)
    said, changed = [facts(session, ids)], change(session, ids)
    if not changed.any():
        said.append("The run has not perturbed it.")
    if not chosen:
        said.append(ANOTHER)
    return evidence(session.found.shown, session.cells_of(ids), changed, " ".join(said))


def evidence(picture: Image.Image, chosen: np.ndarray, changed: np.ndarray, said: str) -> str:
    """As HTML: `said` above a picture with `chosen` (h, w) cells and a map of what changes with them, (H, W) levels."""
    small = picture.copy()
    small.thumbnail((EVIDENCE_SIDE, EVIDENCE_SIDE))
    marked = drawing(
        cells(small, chosen),
        "The picture with the grid of coarse cells; those of the segment are framed",
        f"Its cells: {chosen.sum()} of {chosen.size}",
    )
    heated = map_of(
        changed,
        small.size,
        "How much perturbing these cells changes each pixel: bright is much",
        "What changes as they are perturbed",
    )
    return f'<p class="facts">{escape(said)}</p><div class="figures">{marked}{heated}</div>'


def scores(session: Session, truth: np.ndarray) -> list[list]:
    """EmerDiff's and naive upsampling's scores against `truth` (H, W) at the original size, 255 for void."""
    result, size = session.segmentation, truth.shape[::-1]
    values, truth = np.unique(np.append(truth.ravel(), 255), return_inverse=True)
    truth = truth[:-1].reshape(size[::-1])
    truth = np.where(truth == len(values) - 1, 255, truth)
    if len(values) == 1:
        raise ValueError("the label picture is void (255) everywhere")
    rows = []
    for name, labels in (("EmerDiff", result.labels_at(size)), ("Naive upsampling", result.naive_labels_at(size))):
        counted = tabulate(labels, truth, result.features, len(values) - 1)
        best = oracle([counted])
        numbers = (miou(hungarian([counted])), best["miou"], accuracy(majority([counted])), best["boundary_f"])
        rows.append([name, *(f"{number:.1%}" for number in numbers)])
    return rows


def figure(session: Session) -> Figure:
    """The paper's figure: the same picture in few and in many segments, all of one run."""
    whole, most = session.found, session.found.tree.most
    numbers = [k for k in FIGURE_KS if k <= most]
    image = np.asarray(whole.shown)
    height, width = image.shape[:2]
    panel = 2.4
    plot = Figure(figsize=(panel * (len(numbers) + 1), panel * height / width + 0.35), layout="constrained")
    axes = plot.subplots(1, len(numbers) + 1, squeeze=False)[0]
    axes[0].imshow(image)
    axes[0].set_title("picture")
    for axis, k in zip(axes[1:], numbers, strict=True):
        cut = Session(whole, k)
        axis.imshow(overlay(image, cut.labels, palette(FINE)[:k]))
        axis.set_title(f"k = {k}")
    for axis in axes:
        axis.set_axis_off()
    return plot


def words(summary: dict, k: int, seconds: float | None = None) -> str:
    """The result in one line, with settings and figures folded away; it has been cut to `k` segments.

    The line says why there are fewer than k, where some are empty or have been merged.
    """
    s, parts = summary["settings"], summary["segments"]
    found = sum(part["share"] > 0 for part in parts)
    fewer = {"merged": k - len(parts), "without pixels": len(parts) - found}
    why = ", ".join(f"{count} {what}" for what, count in fewer.items() if count)
    of_k = f" (k = {k}: {why})" if why else ""
    took = f" in {duration(seconds)}" if seconds else ""
    said = [note for note in summary["notes"] if not note.startswith(CUT_FROM)]
    figures = (
        f"EmerDiff puts {summary['differs_from_naive']:.0%} of the pixels into another segment than the coarse guess "
        f"does. {label_of(summary['model'])}, k = {k}, timestep {s['modulation_timestep']}, strength "
        f"{s['strength']:g}, features at {s['feature_timestep']}, seed {s['seed']}."
    )
    cut = [note for note in summary["notes"] if note.startswith(CUT_FROM)]
    folded = f"<details><summary>Settings and figures</summary>{' '.join([figures, *cut])}</details>"
    return " ".join([f"**{counted(found)}**{of_k}{took}.", *said, folded])


def counted(count: int) -> str:
    """So many segments."""
    return "1 segment" if count == 1 else f"{count} segments"


def duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def truth_of(file: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 class numbers of a label picture: an indexed or grey PNG, or one colour for each class.

    Raises `ValueError` where it cannot be read, has not the `size` (width, height) of the picture, or has too many.
    """
    decoded = decode(file)
    picture, values = decoded.picture, decoded.values
    if picture.size != size:
        found, wanted = ("{} x {}".format(*s) for s in (picture.size, size))
        raise ValueError(f"the label picture has {found} pixels, but the picture has {wanted}")
    if values is None or values.ndim == 3:
        mode = "L" if picture.mode == "LA" else picture.mode
        values = np.asarray(picture.convert(mode if mode in ("P", "L", "1") else "RGB"))
    if values.ndim == 2:
        if not 0 <= values.min() <= values.max() <= 255:
            raise ValueError("the label picture has numbers above 255: classes are 0 to 254, and 255 is void")
        return values.astype(np.uint8)
    colours = values.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    classes, numbers = np.unique(colours, return_inverse=True)
    if len(classes) > 255:
        raise ValueError(
            "the label picture has more than 255 colours: it needs one colour for each class, which a JPEG does not "
            "keep"
        )
    return numbers.reshape(colours.shape).astype(np.uint8)
