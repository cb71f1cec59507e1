"""The paper's ablations (section 4.3 and appendix) on drawn scenes: one setting is varied at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from matplotlib.figure import Figure

from ..miniature.scenes import CLASSES, draw_scene
from ..pipeline import EmerDiffPipeline
from ..settings import Settings
from .scoring import oracle, tabulate

VALUES: Mapping[str, Sequence] = {
    "feature_timestep": (1, 101, 201, 301, 501, 701),
    "feature_draws": (1, 3, 10),
    "feature_layer": (0, 1, 2),
    "modulation_timestep": (81, 181, 281, 381, 481, 681),
    "strength": (1.0, 3.0, 10.0, 30.0, 100.0),
    "modulation_layer": (0, 1, 2),
    "smoothing": (0.0, 0.8, 2.0, 4.0),
    "attention_injection": (True, False),
}
OF_THE_MAP = ("feature_timestep", "feature_draws", "feature_layer")  # the others do not change the coarse map


def ablate(pipe: EmerDiffPipeline, seeds: Sequence[int], own: Settings) -> Iterator[dict[str, list[dict[str, object]]]]:
    """After each scene yields, by setting, a row for each value, with mIoU under `majority` and boundary F at 2 pixels.

    The other settings are `own`. Rows are `{"value", "miou", "boundary_f", "naive_miou", "naive_boundary_f"}`, scores
    from 0 to 1. All values of settings that do not change the coarse map start from the same one.
    """
    tables = {(name, value): ([], []) for name, values in VALUES.items() for value in values}
    if own.modulation_layer is None:
        own = replace(own, modulation_layer=pipe.layers.modulated)
    for seed in seeds:
        scene = draw_scene(seed, pipe.native_side)
        base = pipe(scene.image, own)
        for (name, value), (ours, naive) in tables.items():
            coarse = None if name in OF_THE_MAP else base.coarse_labels
            if getattr(own, name) == value:
                result = base
            else:
                result = pipe(scene.image, replace(own, **{name: value}), coarse_labels=coarse)
            for kept, labels in ((ours, result.labels), (naive, result.naive_labels)):
                kept.append(tabulate(labels, scene.labels, base.features, len(CLASSES)))
        yield {
            name: [
                {"value": value}
                | {f"{prefix}{score}": number for prefix, kept in zip(("", "naive_"), tables[name, value], strict=True)
                   for score, number in oracle(kept).items()}
                for value in values
            ]
            for name, values in VALUES.items()
        }  # fmt: skip


def figure(rows: Mapping[str, list[dict]], own: Mapping[str, object]) -> Figure:
    """A panel for each setting: solid lines are EmerDiff, dashed lines naive upsampling, dots the value in `own`."""
    shown = Figure(figsize=(11, 5), layout="constrained")
    panels = shown.subplots(2, 4, sharey=True)
    for panel, (name, of) in zip(panels.flat, rows.items(), strict=False):
        values = [row["value"] for row in of]
        places = range(len(values))
        for color, score, title in (("C0", "miou", "mIoU"), ("C1", "boundary_f", "boundary F, 2 px")):
            panel.plot(places, [100 * row[score] for row in of], "-", color=color, label=title)
            panel.plot(places, [100 * row[f"naive_{score}"] for row in of], "--", color=color, label=f"{title}, naive")
            if own[name] in values:
                place = values.index(own[name])
                panel.plot(place, 100 * of[place][score], "o", color=color)
        on_off = name == "attention_injection"
        panel.set_xticks(places, ["on" if on else "off" for on in values] if on_off else [f"{v:g}" for v in values])
        panel.set_title(name.replace("_", " "), fontsize=10)
        panel.tick_params(labelsize=8)
        panel.grid(alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel("per cent")
    shown.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=9)
    return shown
