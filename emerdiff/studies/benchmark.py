"""What a run costs on this machine, compared with the published procedure and with matrix multiplication."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import psutil
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import CLIPTextConfig, CLIPTextModel

from ..batches import Results
from ..loading import cast, fast_dtype
from ..matching import agreement
from ..miniature.model import new_scheduler, new_tokenizer
from ..pipeline import EmerDiffPipeline
from ..progress import PERTURBING
from ..settings import PRESETS, Settings
from ..starting import LIGHT_SETTINGS
from .published import Published

SEED = 600_000  # of the drawn scene
NOTEBOOK_DRAWS = 100  # of the features, in the published procedure


@dataclass(frozen=True)
class Measurement:
    """What one way of running the method took."""

    name: str
    dtype: torch.dtype
    seconds: float
    extrapolated: bool
    """Whether the run was cut short or only sampled, and the figures are extrapolated to all rows and decodes."""
    rows: int
    decodes: int
    tflop: float
    """Trillions of floating-point operations in matrix multiplications and convolutions of U-Net and decoder."""
    modulated_seconds: float
    """In the U-Net's perturbed steps, as far as they were run."""
    modulated_tflop: float
    peak_memory: float
    """GiB, of this process or on the GPU."""
    labels: np.ndarray | None = field(repr=False)


def stable_diffusion_sized() -> EmerDiffPipeline:
    """A pipeline of Stable Diffusion 1.x's size with random weights, which is good for timing only."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )
    return _with_text_encoder(vae, UNet2DConditionModel(sample_size=64, cross_attention_dim=768))


def light_sized() -> EmerDiffPipeline:
    """The same with the U-Net of BK-SDM-Tiny, Stable Diffusion distilled, and a small autoencoder."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        block_out_channels=(320, 640, 1280),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
    )
    return _with_text_encoder(AutoencoderTiny(), unet)  # as small as the one made for Stable Diffusion


def _with_text_encoder(vae: nn.Module, unet: UNet2DConditionModel) -> EmerDiffPipeline:
    tokenizer = new_tokenizer(["a picture"])
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return EmerDiffPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=new_scheduler(),
    )


def matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """The speed of the fastest of a few square matrix multiplications, in FLOP/s."""
    side = 8192 if device.type == "cuda" else 2048
    a, best = torch.ones(side, side, device=device, dtype=dtype), 0.0
    for _ in range(8):
        begin = _now(device)
        a @ a
        best = max(best, 2 * side**3 / (_now(device) - begin))
    return best


# ---------------------------------------------------------------- meters


@dataclass(frozen=True)
class Call:
    """One call of the U-Net or the decoder."""

    network: str
    rows: int
    """In its output; 0 if the call failed."""
    begin: float
    end: float
    flop: int
    """0 if they were not counted."""


@contextmanager
def metered(unet: nn.Module, decoder: nn.Module, *, count: bool) -> Iterator[list[Call]]:
    """Lists the calls of both networks within the block; counting their operations slows small networks down."""
    calls: list[Call] = []
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # torch has no formula for this one
    formulas = {flash: lambda q, k, v, *_, out_shape=None, **__: sdpa_flop_count(q, k, v)}

    def timed(name: str, forward: Callable) -> Callable:
        def call(x: Tensor, *args, **kwargs):
            counter = FlopCounterMode(display=False, custom_mapping=formulas) if count else None
            rows, begin = 0, _now(x.device)
            try:
                with counter or nullcontext():
                    output = forward(x, *args, **kwargs)
                rows = len(output[0] if isinstance(output, tuple) else getattr(output, "sample", output))
                return output
            finally:
                flop = counter.get_total_flops() if counter else 0
                calls.append(Call(name, rows, begin, _now(x.device), flop))

        return call

    with ExitStack() as stack:
        for name, network in (("unet", unet), ("decoder", decoder)):
            network.forward = timed(name, network.forward)
            stack.callback(delattr, network, "forward")
        yield calls


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float]]:
    """Gives a list that contains, after the block, the largest number of GiB in use within it."""
    peak: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.append(torch.cuda.max_memory_allocated(device) / 2**30)
        return
    process, done, seen = psutil.Process(), threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak.append(max(seen) / 2**30)


def _now(device: torch.device) -> float:
    """Seconds, once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# ---------------------------------------------------------------- runs


def run(pipe: EmerDiffPipeline, picture: Image.Image, settings: Settings, name: str, limit: float) -> Measurement:
    """Runs the pipeline once to count operations, then up to three times, of which the fastest is returned.

    A run of more than `limit` seconds is stopped after a batch of segments, and the rest is extrapolated. It is not
    repeated, because counting hardly slows calls of that size down.
    """
    counted = _attempt(pipe, picture, settings, name, limit, count=True)
    if counted.extrapolated:
        return counted
    timed: list[Measurement] = []
    while not timed or (len(timed) < 3 and sum(attempt.seconds for attempt in timed) < 10):
        timed.append(_attempt(pipe, picture, settings, name, limit, count=False))
    fastest = min(timed, key=lambda attempt: attempt.seconds)
    return replace(fastest, tflop=counted.tflop, modulated_tflop=counted.modulated_tflop)


def _attempt(
    pipe: EmerDiffPipeline, picture: Image.Image, settings: Settings, name: str, limit: float, *, count: bool
) -> Measurement:
    with peak_memory(pipe.unet.device) as peak, metered(pipe.unet, pipe.vae.decoder, count=count) as calls:
        begin, before, first, stopped = time.perf_counter(), 0, None, False
        for event in (results := Results(pipe.stream(picture, settings))):
            if event.stage != PERTURBING or event.done == before:
                before = event.done  # rows
            elif first is None:
                first = len(calls) - 1
            elif calls[-2].network == "decoder" and time.perf_counter() - begin > limit:
                stopped = True
                calls.pop()  # of the next batch
                break
        end = calls[-1].end if stopped else time.perf_counter()
    modulated = [call for call in calls[first:] if call.network == "unet"]
    once, repeated = (sum(c.rows for c in part if c.network == "decoder") for part in (calls[:first], calls[first:]))
    share = sum(call.rows for call in modulated) / (event.total - before)  # of the perturbed steps, those that were run
    return Measurement(
        name=name,
        dtype=pipe.unet.dtype,
        seconds=calls[first].begin - begin + (end - calls[first].begin) / share,
        extrapolated=stopped,
        rows=event.total,
        decodes=round(once + repeated / share),
        tflop=(sum(call.flop for call in calls[:first]) + sum(call.flop for call in calls[first:]) / share) / 1e12,
        modulated_seconds=sum(call.end - call.begin for call in modulated),
        modulated_tflop=sum(call.flop for call in modulated) / 1e12,
        peak_memory=peak[0],
        labels=None if stopped else results.value.labels,
    )


def run_published(pipe: EmerDiffPipeline, picture: Image.Image, settings: Settings, *, whole: bool) -> Measurement:
    """The published procedure: run as a `whole`, or extrapolated from three of its calls."""
    published = Published(
        pipe,
        picture,
        picture.size,
        num_segments=settings.num_segments,
        feature_timestep=settings.feature_timestep,
        feature_draws=settings.feature_draws,
        feature_layer=pipe.layers.block[settings.feature_layer],
        modulation_layer=pipe.layers.modulated_at(settings.modulation_layer).modulation,
        steps=settings.num_inference_steps,
        t_m=settings.modulation_timestep,
        strength=settings.strength,
        n_init=settings.kmeans_n_init,
        seed=settings.seed,
        velocity=pipe.scheduler.config.prediction_type == "v_prediction",
    )
    replayed = sum(t <= published.t_m for t in published.grid)
    modulated = 2 * settings.num_segments * replayed
    unmodulated = len(published.grid) + settings.feature_draws + replayed
    decodes = 2 * settings.num_segments
    seconds = labels = None
    with peak_memory(pipe.unet.device) as peak, torch.inference_mode():
        with metered(published.unet, published.vae.decoder, count=True) as counted:
            published.example()
        with metered(published.unet, published.vae.decoder, count=False) as timed:
            published.example()
        if whole:
            begin = time.perf_counter()
            labels = published.run()
            seconds = time.perf_counter() - begin
    times = (unmodulated, modulated, decodes)
    return Measurement(
        name="published",
        dtype=pipe.unet.dtype,
        seconds=seconds or sum(n * (call.end - call.begin) for n, call in zip(times, timed, strict=True)),
        extrapolated=not whole,
        rows=unmodulated + modulated,
        decodes=decodes,
        tflop=sum(n * call.flop for n, call in zip(times, counted, strict=True)) / 1e12,
        modulated_seconds=timed[1].end - timed[1].begin,
        modulated_tflop=counted[1].flop / 1e12,
        peak_memory=peak[0],
        labels=labels,
    )


def row(measured: Measurement, published: Measurement, matmul_speed: float) -> dict:
    """A measurement as plain values for JSON; `matmul_speed`, of a matrix multiplication, is in TFLOP/s."""
    both = measured.labels is not None and published.labels is not None
    return {
        "name": measured.name,
        "dtype": str(measured.dtype).removeprefix("torch."),
        "seconds": measured.seconds,
        "extrapolated": measured.extrapolated,
        "times_faster": published.seconds / measured.seconds,
        "rows": measured.rows,
        "decodes": measured.decodes,
        "tflop": measured.tflop,
        "share_of_matmul_peak": measured.modulated_tflop / measured.modulated_seconds / matmul_speed,
        "peak_memory_gib": measured.peak_memory,
        "equal_labels": agreement(measured.labels, published.labels) if both else None,
    }


def compare(
    pipe: EmerDiffPipeline, picture: Image.Image, num_segments: int, *, whole: bool, limit: float
) -> Iterator[Measurement]:
    """The published procedure in float32, the exact engine in float32 and in half precision, then the presets.

    The pipeline is cast to float32, and finally to half precision if that is fast on the device. Unless the published
    procedure is run as a `whole`, the pipeline has to be of Stable Diffusion's size, the presets are run again with a
    small autoencoder of random weights, and last comes what the page offers as Stable Diffusion, light.
    """
    draws = {"num_segments": num_segments, "feature_draws": NOTEBOOK_DRAWS}
    cast(pipe, torch.float32)
    yield run_published(pipe, picture, pipe.settings(**draws), whole=whole)
    half = fast_dtype(pipe.unet.device)
    for dtype in dict.fromkeys((torch.float32, half)):
        cast(pipe, dtype)
        yield run(pipe, picture, pipe.settings(**draws), "exact", limit)
    quick = {name: pipe.settings(preset=name, num_segments=num_segments) for name in PRESETS if name != "exact"}
    for preset, settings in quick.items():
        yield run(pipe, picture, settings, preset, limit)
    if not whole:
        pipe.register_modules(vae=AutoencoderTiny().eval())  # as small as the one made for Stable Diffusion
        cast(pipe.to(pipe.unet.device), pipe.unet.dtype)
        pipe.vae.to(memory_format=torch.channels_last)
        for preset, settings in quick.items():
            yield run(pipe, picture, settings, f"{preset}, tiny", limit)
        light = light_sized().to(pipe.unet.device)
        cast(light, pipe.unet.dtype)
        for network in (light.unet, light.vae):  # as `load` does
            network.to(memory_format=torch.channels_last)
        yield run(light, picture, light.settings(**LIGHT_SETTINGS, num_segments=num_segments), "light", limit)


def growth(
    pipe: EmerDiffPipeline, picture: Image.Image, numbers: Sequence[int], sides: Sequence[int], limit: float
) -> list[dict]:
    """Seconds of each preset by number of segments, at the native size, and by side, with the first number."""
    points = [(k, pipe.native_side) for k in numbers] + [(numbers[0], side) for side in sides]
    rows = []
    for k, side in dict.fromkeys(points):
        for preset in PRESETS:
            settings = pipe.settings(preset=preset, num_segments=k, image_area=side**2)
            measured = run(pipe, picture, settings, preset, limit)
            rows.append({"name": preset, "k": k, "side": side, "seconds": measured.seconds})
    return rows


def figure(rows: list[dict], native_side: int) -> Figure:
    """How time grows with the number of segments and with the side: two panels with logarithmic axes."""
    shown = Figure(figsize=(8, 3.4), layout="constrained")
    panels = shown.subplots(1, 2, sharey=True)
    first = rows[0]["k"]
    for preset in PRESETS:
        own = [row for row in rows if row["name"] == preset]
        by_number = sorted((row["k"], row["seconds"]) for row in own if row["side"] == native_side)
        by_side = sorted((row["side"], row["seconds"]) for row in own if row["k"] == first)
        for panel, points in zip(panels, (by_number, by_side), strict=True):
            panel.plot(*zip(*points, strict=True), "o-", label=preset)
    titles = (f"{native_side} x {native_side} pixels", f"k = {first}")
    for panel, title, label in zip(panels, titles, ("segments, k", "side, pixels"), strict=True):
        panel.set(title=title, xlabel=label, xscale="log", yscale="log")
        ticks = sorted({line for drawn in panel.lines for line in drawn.get_xdata()})
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend()
    return shown
