"""The cost and the loss of settings: variants on drawn scenes, compared with the exact run and the ground truth."""

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ..matching import agreement
from ..miniature.scenes import CLASSES, Scene, draw_scene
from ..pipeline import EmerDiffPipeline
from ..recut import recut
from ..segmentation import Segmentation
from ..settings import PRESETS
from . import scoring

FINE = 30  # segments of the run that is cut to fewer
EXACT, NAIVE, RECUT, UNION = "exact", "naive", f"re-cut from {FINE}", "exact on the re-cut's segments"
ONE_SIDE = {"two_sided": False}
MAGNIFIED = ONE_SIDE | {"magnified_decoding": True}
VARIANTS: Mapping[str, Mapping[str, object]] = {
    EXACT: {},
    **{f"{steps} steps": {"replay_steps": steps} for steps in (8, 4)},
    "one side": ONE_SIDE,
    **{f"one side, {steps} steps": ONE_SIDE | {"replay_steps": steps} for steps in (8, 6, 4, 3, 2)},
    **{f"magnified, {steps} steps": MAGNIFIED | {"replay_steps": steps} for steps in (8, 6, 4, 3, 2)},
}


class Tally:
    """Collects the results of one variant."""

    def __init__(self) -> None:
        self.tables, self.seconds, self.agreements = [], [], []

    def add(self, labels: np.ndarray, scene: Scene, exact: Segmentation, seconds: float) -> None:
        self.tables.append(scoring.tabulate(labels, scene.labels, exact.features, len(CLASSES)))
        self.seconds.append(seconds)
        self.agreements.append(agreement(labels, exact.labels))

    @property
    def row(self) -> dict[str, float]:
        """Means over the scenes, and the scores of all scenes together."""
        means = {"seconds": float(np.mean(self.seconds)), "agreement": float(np.mean(self.agreements))}
        return means | scoring.oracle(self.tables) | {"hungarian": scoring.miou(scoring.hungarian(self.tables))}


def sweep(pipe: EmerDiffPipeline, seeds: Sequence[int], num_segments: int) -> Iterator[dict[str, dict[str, float]]]:
    """After each scene yields rows by name: seconds, agreement with the exact run, and scores from 0 to 1.

    There is a row for each variant, for naive upsampling, and for a run of `FINE` segments that is cut to fewer. A last
    one is an exact run that starts from the cut's own coarse map; its agreement is with the cut.
    """
    tallies = {name: Tally() for name in (*VARIANTS, NAIVE, RECUT, UNION)}
    for seed in seeds:
        scene = draw_scene(seed, pipe.native_side)

        def timed(scene=scene, **kwargs):
            coarse = kwargs.pop("coarse_labels", None)
            begin = time.perf_counter()
            result = pipe(scene.image, pipe.settings(**{"num_segments": num_segments} | kwargs), coarse_labels=coarse)
            return result, time.perf_counter() - begin

        runs = {name: timed(**changes) for name, changes in VARIANTS.items()}
        exact, _ = runs[EXACT]
        for name, (result, seconds) in runs.items():
            tallies[name].add(result.labels, scene, exact, seconds)
        tallies[NAIVE].add(exact.naive_labels, scene, exact, 0)
        fine, _ = timed(num_segments=FINE)
        begin = time.perf_counter()
        cut = recut(fine, num_segments)
        seconds = time.perf_counter() - begin
        union, union_seconds = timed(coarse_labels=cut.coarse_labels)
        tallies[RECUT].add(cut.labels, scene, exact, seconds)
        tallies[UNION].add(union.labels, scene, cut, union_seconds)
        yield {name: tally.row for name, tally in tallies.items()}


def figure(rows: Mapping[str, Mapping[str, float]]) -> Figure:
    """mIoU and boundary F over seconds, with presets named and naive upsampling as a line."""
    shown = Figure(figsize=(9, 3.8), layout="constrained")
    panels = shown.subplots(1, 2)
    seconds = [rows[name]["seconds"] for name in VARIANTS]
    traits = {"D": "magnified_decoding", "s": "two_sided"}  # markers, the first that applies
    kinds = {"o": "both signs", "s": "one sign", "D": "one sign, magnified decoding"}
    for panel, score, title in zip(panels, ("miou", "boundary_f"), ("mIoU", "boundary F, 2 pixels"), strict=True):
        for marker, kind in kinds.items():
            panel.plot([], [], marker, color="0.6", label=kind)
        for name, changes in VARIANTS.items():
            x, y = rows[name]["seconds"], 100 * rows[name][score]
            marker = next((marker for marker, trait in traits.items() if trait in changes), "o")
            preset = next((preset for preset, own in PRESETS.items() if own == changes), None)
            panel.plot(x, y, marker, color="C0" if preset else "0.6", markersize=9 if preset else 5)
            if preset:
                panel.annotate(preset, (x, y), (0, 9), textcoords="offset points", ha="center", color="C0")
        panel.axhline(100 * rows[NAIVE][score], color="C3", linestyle="--", linewidth=1, label="naive upsampling")
        ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if min(seconds) / 2 < t < 2 * max(seconds)]
        panel.set(xscale="log", xlabel="seconds per picture", ylabel=f"{title}, %")
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
        panel.margins(0.12, 0.2)
        panel.grid(alpha=0.3)
    shown.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return shown
