"""EmerDiff (Namekata, Sabour, Fidler and Kim, ICLR 2024, arXiv 2401.11739) as a diffusers pipeline."""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import psutil
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from .attention import recorded_layers
from .batches import Results, Rows, in_batches
from .checking import check_parts, empty_prompt
from .hooks import exclusive, record
from .inversion import Inversion, Step, invert, predict, sampling_steps, step_at, thinned
from .layers import find_layers, native_latent_side
from .masks import label, magnification, response, upsample_naive
from .modulation import replay
from .picture import SIDE_MULTIPLE, Picture, read_picture, size_for_network, to_tensor
from .segmentation import Segmentation
from .segments import cluster, draw_features
from .settings import PRESETS, Settings

MOST_ROWS = {"cpu": 16, "cuda": 64, "mps": 16}  # of one U-Net call: more gain nothing
MOST_BYTES = 2 * 2**30  # off CUDA: 9 rows of Stable Diffusion in bfloat16, 10 s that who stops a run has to wait
MODULATING = "modulating segments"
ACTIVATIONS_PER_ROW = 60  # memory of one more row, in feature maps of the first level; measured 25 to 45


@dataclass(frozen=True)
class Progress:
    """How far a run is: U-Net rows done, of all."""

    stage: str
    done: int
    total: int
    sketch: Segmentation | None = None
    """Once the segments are known, and again when some of their masks are: the result so far. Where no finished mask
    belongs, its labels are naive upsampling's; unfinished differences are 0."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """A picture and settings as the network gets them."""

    picture: Image.Image
    """As the network sees it."""
    original_size: tuple[int, int]
    """(width, height) of the picture that was handed in."""
    grid: tuple[int, int]
    """(h, w) of the low-resolution grid."""
    settings: Settings
    """As used: timesteps on the grid, `image_area` filled in."""
    steps: tuple[Step, ...]
    """From t_m down."""
    notes: tuple[str, ...]
    """What was made of the picture or changed in the settings, and why, as sentences."""


@dataclass(frozen=True, eq=False)
class Reading(_Seen):
    """A picture as the network has read it: what a run needs before any segment is perturbed."""

    prompt: Tensor
    """The empty one, encoded."""
    x_0: Tensor
    """The picture's latents, (1, 4, H / 8, W / 8) for Stable Diffusion."""
    inversion: Inversion
    features: np.ndarray
    """(h, w, c) float32."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes, nearly all for what the inversion recorded."""
        recorded = (tensor for inverted in self.inversion.steps for tensor in inverted.recorded.values())
        return sum(tensor.nbytes for tensor in recorded)


class EmerDiffPipeline(DiffusionPipeline):
    """Segments pictures with a text-to-image latent diffusion model: no training, labels or prompt.

    Made from the parts of a Stable Diffusion 1.x or 2.x checkpoint; `from_pretrained`, `.to()`,
    `save_pretrained` and offloading are the library's. Raises `ValueError` with the reason where the U-Net is
    not of a supported architecture, or the parts do not fit each other. A pipeline may be used by several threads at
    once.

        pipe = emerdiff.load("miniature")
        segmentation = pipe("street.jpg", pipe.settings(num_segments=12))
    """

    share_attention = True
    """Compute what all rows of a replay share once. Off, each row does it for itself, with the same result."""

    model_cpu_offload_seq = "text_encoder->unet->vae"
    _optional_components = ["safety_checker", "feature_extractor"]

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        defaults: dict | None = None,
        safety_checker: None = None,
        feature_extractor: None = None,
    ) -> None:
        """`defaults`: settings that suit this model better than the paper's; kept in model_index.json.

        The last two are parts of Stable Diffusion checkpoints that are not used: named so that they need not
        be downloaded.
        """
        super().__init__()
        self.layers = find_layers(unet)
        step_at(scheduler, 0)  # refuses other noise schedules than DDIM's, and predictions than noise or velocity
        check_parts(vae, text_encoder, tokenizer, unet)
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_modules(safety_checker=None, feature_extractor=None)
        self.register_to_config(defaults=defaults or {})
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        low, high = (math.isqrt(area) for area in Settings.range_of("image_area"))
        if not low <= self.native_side <= high:
            raise ValueError(f"its pictures must be from {low} to {high} pixels a side, not {self.native_side}")
        try:  # now rather than at the first picture
            settings, *_ = self._fit(self.settings())
            step_at(scheduler, settings.feature_timestep)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the model's default settings are wrong: {error}") from error

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "EmerDiffPipeline":
        """As the library's, but for safetensors only and without the safety checker."""
        unused = {"safety_checker": None, "feature_extractor": None}
        return super().from_pretrained(pretrained_model_name_or_path, **unused, **{"use_safetensors": True} | kwargs)

    def settings(self, *, preset: str = "exact", **changes) -> Settings:
        """The settings that suit this model, changed by a preset of `PRESETS`, then by `changes`."""
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
        return Settings(**self.config.defaults | PRESETS[preset] | changes)

    @property
    def native_side(self) -> int:
        """Side in pixels of the pictures that the model was trained on."""
        return native_latent_side(self.unet) * self.vae_scale_factor

    def __call__(
        self,
        image: Picture,
        settings: Settings | None = None,
        *,
        coarse_labels: np.ndarray | None = None,
        progress: Callable[[Progress], None] | None = None,
        rows_per_batch: int | None = None,
    ) -> Segmentation:
        """Segment a picture: a path, a PIL image or an (H, W, 3) uint8 array.

        `settings` default to the model's own, `pipe.settings()`. `coarse_labels`, if given, are segments of
        one's own in place of k-means': (h, w) whole numbers below `num_segments`. `progress` is called after
        each U-Net call; what it raises ends the run. `rows_per_batch` limits the rows of one U-Net call; by
        default they follow from the memory that is free. It does not change the result. Raises `ValueError` for
        a picture that cannot be read or is of one colour, or for settings or labels that do not fit it.
        """
        stream = self.stream(image, settings, coarse_labels=coarse_labels, rows_per_batch=rows_per_batch)
        for event in (run := Results(stream)):
            if progress:
                progress(event)
        return run.value

    def stream(
        self,
        image: Picture,
        settings: Settings | None = None,
        *,
        coarse_labels: np.ndarray | None = None,
        rows_per_batch: int | None = None,
    ) -> Generator[Progress, None, Segmentation]:
        """As calling the pipeline, but yields its progress after each U-Net call and returns the result.

        Closing the generator ends the run; between calls it holds no lock and no hook.
        """
        seen = self._see(image, settings)
        if coarse_labels is not None:
            _check_coarse(coarse_labels, seen.grid, seen.settings.num_segments)
        reading = yield from self._read(seen, None, rows_per_batch)
        return (yield from self.segment(reading, coarse_labels=coarse_labels, rows_per_batch=rows_per_batch))

    def read(
        self,
        image: Picture,
        settings: Settings | None = None,
        *,
        previous: Reading | None = None,
        rows_per_batch: int | None = None,
    ) -> Generator[Progress, None, Reading]:
        """The first half of a run: yields its progress and returns what `segment` and `probe` go on with.

        What still holds of a `previous` reading is not computed again: all of it where only the number of segments,
        the strength, the smoothing, `two_sided` or `magnified_decoding` is another.
        """
        return (yield from self._read(self._see(image, settings), previous, rows_per_batch))

    def _read(self, seen: _Seen, previous: Reading | None, rows: int | None) -> Generator[Progress, None, Reading]:
        settings, steps = seen.settings, seen.steps
        if previous and previous.picture != seen.picture:
            previous = None

        def holds(*names: str) -> bool:
            return bool(previous) and all(getattr(settings, n) == getattr(previous.settings, n) for n in names)

        counter = _Counter(_rows_to_read(settings, steps) + _rows_of(settings, steps, settings.num_segments))
        prompt = self._encode_prompt()
        x_0 = previous.x_0 if previous else self._encode(seen.picture)
        rows = rows or self._rows_that_fit(x_0)
        of_steps = ("modulation_timestep", "num_inference_steps", "replay_steps", "attention_injection")
        if holds("seed", "feature_layer", *of_steps):
            inversion = previous.inversion
            counter.done += len(steps)
        else:
            inversion = yield from counter.count(
                "inverting the picture",
                invert(
                    self.unet,
                    x_0,
                    prompt,
                    steps,
                    noise=_noise_like(x_0, settings.seed),
                    recorded=recorded_layers(self.layers, shared=self.share_attention)
                    if settings.attention_injection
                    else (),
                    feature=self._feature(settings),
                    rows=rows,
                ),
            )
        if holds("seed", "feature_timestep", "feature_draws", "feature_layer"):
            features = previous.features
        else:
            first = inversion.queries if _free_draw(settings, steps) else None
            features = yield from counter.count(
                "reading features", self._draw_features(x_0, prompt, settings, rows, first=first)
            )
            features = features.reshape(*seen.grid, -1)
        return Reading(**vars(seen), prompt=prompt, x_0=x_0, inversion=inversion, features=features)

    def segment(
        self, reading: Reading, *, coarse_labels: np.ndarray | None = None, rows_per_batch: int | None = None
    ) -> Generator[Progress, None, Segmentation]:
        """The second half of a run: the network perturbed segment by segment; yields its progress."""
        settings, k = reading.settings, reading.settings.num_segments
        if coarse_labels is None:
            coarse = cluster(reading.features.reshape(math.prod(reading.grid), -1), k, settings.kmeans_n_init)
            coarse = coarse.reshape(reading.grid)
        else:
            _check_coarse(coarse_labels, reading.grid, k)
            coarse = coarse_labels.astype(np.int32)
        size = reading.picture.size[::-1]
        naive = upsample_naive(coarse, k, size)
        sketch = Segmentation(
            image=np.asarray(reading.picture),
            labels=naive,
            coarse_labels=coarse,
            features=reading.features,
            responses=np.zeros((k, 3, *size), np.float16),
            differences=np.zeros((k, *size), np.float32),
            naive_labels=naive,
            confidence=np.zeros(size, np.float32),
            original_size=reading.original_size,
            settings=settings,
            model=str(self.name_or_path or "unnamed"),
            notes=reading.notes,
        )
        counter = _Counter(_rows_to_read(settings, reading.steps) + _rows_of(settings, reading.steps, k))
        counter.done = _rows_to_read(settings, reading.steps)
        yield counter.progress(MODULATING, sketch)

        masks = torch.from_numpy(coarse.reshape(1, -1)) == torch.arange(k)[:, None]  # (k, cells)
        responses, known = np.zeros((k, 3, *size), np.float32), np.zeros(k, bool)
        told = 0
        for rows in self._respond(reading, masks, responses, known, rows_per_batch):
            counter.done += rows
            news, told = known.sum() > told, known.sum()
            yield counter.progress(MODULATING, _judge(sketch, responses, known) if news else None)
        self.maybe_free_model_hooks()
        return _judge(sketch, responses, known)

    def probe(
        self, reading: Reading, offsets: np.ndarray, *, rows_per_batch: int | None = None
    ) -> Generator[Progress, None, np.ndarray]:
        """The picture painted again with the network perturbed at will: (b, H, W, 3) float32, 0 to 255, not clamped.

        `offsets` (b, h, w) are added to the modulated layer's output in each cell, as a segment's are in a run: signed
        strengths. Yields its progress. Raises `ValueError` for offsets that do not fit the grid or are not finite.
        """
        if offsets.ndim != 3 or offsets.shape[1:] != reading.grid or not np.isfinite(offsets).all():
            h, w = reading.grid
            raise ValueError(f"offsets must be finite numbers, {h} rows of {w} for each picture, not {offsets.shape}")
        counter = _Counter(len(offsets) * len(reading.steps))
        rows = rows_per_batch or self._rows_that_fit(reading.x_0)
        cells = torch.from_numpy(offsets.reshape(len(offsets), -1)).float()
        painted = yield from counter.count(
            "painting the picture again", in_batches(cells, rows, lambda some: self._paint(reading, some))
        )
        self.maybe_free_model_hooks()
        return (torch.cat([picture.cpu() for picture in painted]).permute(0, 2, 3, 1).numpy() + 1) * 127.5

    def rows(self, settings: Settings) -> int:
        """U-Net rows of a run."""
        settings, steps, _ = self._fit(settings)
        return _rows_to_read(settings, steps) + _rows_of(settings, steps, settings.num_segments)

    def features(self, image: Picture, settings: Settings | None = None) -> np.ndarray:
        """The features alone that a run with these settings would cluster: (h, w, c) float32."""
        seen = self._see(image, settings)
        x_0 = self._encode(seen.picture)
        run = Results(self._draw_features(x_0, self._encode_prompt(), seen.settings, self._rows_that_fit(x_0)))
        for _ in run:
            pass
        return run.value.reshape(*seen.grid, -1)

    @torch.inference_mode()
    def outputs(
        self, image: Picture, layers: Iterable[str], timestep: int, settings: Settings | None = None
    ) -> dict[str, Tensor]:
        """Outputs (1, ...) of the named `layers` of the U-Net for the picture with noise as of `timestep`."""
        seen = self._see(image, settings)
        x_0, step = self._encode(seen.picture), step_at(self.scheduler, timestep)
        x_t = step.add_noise(x_0, _noise_like(x_0, seen.settings.seed)())
        with record(self.unet, layers) as outputs:
            predict(self.unet, x_t, step.t, self._encode_prompt())
        return outputs

    def _see(self, image: Picture, settings: Settings | None) -> _Seen:
        opened = read_picture(image)
        original = opened.picture
        settings, steps, notes = self._fit(settings or self.settings())
        multiple = math.lcm(SIDE_MULTIPLE, self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))
        size = size_for_network(original.size, settings.image_area, keep_aspect=settings.keep_aspect, multiple=multiple)
        grid = tuple(side // (self.vae_scale_factor * self.layers.stride) for side in reversed(size))
        if settings.num_segments > math.prod(grid):
            raise ValueError(
                f"num_segments is {settings.num_segments}, but this picture's low-resolution grid has only "
                f"{grid[1]} x {grid[0]} = {math.prod(grid)} cells: choose at most that many, or a larger image_area"
            )
        picture = original.resize(size, Image.Resampling.LANCZOS)
        return _Seen(picture, original.size, grid, settings, steps, (*opened.notes, *notes))

    def _fit(self, settings: Settings) -> tuple[Settings, tuple[Step, ...], tuple[str, ...]]:
        """Settings as this model can run them, the steps from t_m down, and sentences on what was changed."""
        last = len(self.layers.features) - 1
        if settings.feature_layer > last:
            raise ValueError(f"feature_layer must be from 0 to {last} for this model, not {settings.feature_layer}")
        grid = sampling_steps(self.scheduler, settings.num_inference_steps)
        t_m = min((step.t for step in grid), key=lambda t: abs(t - settings.modulation_timestep))
        notes = ()
        if t_m != settings.modulation_timestep:
            notes = (
                f"Modulation timestep {settings.modulation_timestep} is not on the grid of "
                f"{settings.num_inference_steps} sampling steps; the nearest, {t_m}, was used.",
            )
        steps = tuple(step for step in grid if step.t <= t_m)
        if settings.replay_steps:
            steps = thinned(steps, settings.replay_steps)
            settings = replace(settings, replay_steps=len(steps))
        area = settings.image_area or self.native_side**2
        return replace(settings, modulation_timestep=t_m, image_area=area), steps, notes

    @torch.inference_mode()
    def _encode_prompt(self) -> Tensor:
        """The empty prompt, padded: (1, 77, c) in the U-Net's dtype."""
        ids = empty_prompt(self.tokenizer, self.text_encoder)
        with exclusive(self.unet):
            hidden = self.text_encoder(ids.to(self._execution_device))[0]
        return hidden.to(self.unet.dtype)

    @torch.inference_mode()
    def _encode(self, picture: Image.Image) -> Tensor:
        """x_0 (1, 4, h, w) float32: the posterior's mean, scaled."""
        with exclusive(self.unet), _without_tf32():
            encoded = self.vae.encode(to_tensor(picture).to(self._execution_device, self.vae.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
        return latents.float() * self.vae.config.scaling_factor

    @torch.inference_mode()
    def _decode(self, latents: Tensor, *, half: bool = False) -> Tensor:
        """Pictures (b, 3, H, W) float32, about [-1, 1]; not clamped, so that small differences survive.

        `half`: computed in the U-Net's precision, not in the autoencoder's own.
        """
        dtype = self.unet.dtype if half else None
        autocast = torch.autocast(latents.device.type, dtype, enabled=half)
        with exclusive(self.unet), _without_tf32(), autocast:
            return self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()

    def _feature(self, settings: Settings) -> str:
        """Name of the module whose outputs are clustered."""
        return f"{self.layers.features[settings.feature_layer]}.to_q"

    def _draw_features(
        self, x_0: Tensor, prompt: Tensor, settings: Settings, rows: int, *, first: Tensor | None = None
    ) -> Generator[int, None, np.ndarray]:
        return draw_features(
            self.unet,
            x_0,
            prompt,
            step_at(self.scheduler, settings.feature_timestep),
            noise=_noise_like(x_0, settings.seed),
            layer=self._feature(settings),
            draws=settings.feature_draws,
            first=first,
            rows=rows,
        )

    def _respond(
        self, reading: Reading, masks: Tensor, responses: np.ndarray, known: np.ndarray, rows: int | None
    ) -> Generator[int, None, None]:
        """Fill in G(I+) - G(I-), (k, 3, H, W), for k `masks`, and which are `known`; yields the rows of U-Net calls."""
        settings = reading.settings
        signs = torch.tensor([-1, 1] if settings.two_sided else [1])
        magnified = settings.magnified_decoding and self.unet.dtype != torch.float32
        reference = self._decode(reading.x_0, half=magnified) if magnified or not settings.two_sided else None
        unmodulated = () if settings.two_sided else (reference,)
        rows = rows or self._rows_that_fit(reading.x_0)

        def modulated(at: Tensor) -> Rows:
            offsets = settings.strength * masks[at][:, None] * signs[:, None]  # (b, sides, cells)
            painted = yield from self._paint(reading, offsets.flatten(0, 1), reference if magnified else None)
            for i in at.tolist():
                minus, plus = (*unmodulated, *(next(painted) for _ in signs))
                responses[i] = response(minus, plus, settings.smoothing)[0].cpu()
                known[i] = True
            return at

        yield from in_batches(torch.arange(len(masks)), max(1, rows // len(signs)), modulated)

    def _paint(
        self, reading: Reading, offsets: Tensor, reference: Tensor | None = None
    ) -> Generator[int, None, Iterator[Tensor]]:
        """Pictures (1, 3, H, W) float32 of the replays with `offsets` (rows, cells), decoded as they are asked for.

        With a `reference`, the unmodulated picture in half precision, they are what they are to first order around it.
        """
        latents = yield from replay(
            self.unet,
            reading.inversion,
            reading.prompt,
            offsets.to(reading.prompt),
            self.layers,
            attention_injection=reading.settings.attention_injection,
            shared=self.share_attention,
        )
        if reference is not None:
            return self._decode_magnified(latents, reading.x_0, reference)
        return (picture for some in latents.split(2) for picture in self._decode(some).split(1))

    def _decode_magnified(self, latents: Tensor, x_0: Tensor, reference: Tensor) -> Iterator[Tensor]:
        """Pictures (1, 3, H, W) to first order around that of `x_0`, the `reference`: in half precision."""
        for changes in (latents - x_0).split(2):
            factors = magnification(changes)
            changed = self._decode(x_0 + factors * changes, half=True)
            yield from (reference + (changed - reference) / factors).split(1)

    def _rows_that_fit(self, x_0: Tensor) -> int:
        """Rows of one U-Net call for latents like `x_0` in the memory that is free now."""
        channels = self.unet.config.block_out_channels[0]
        bytes_per_row = ACTIVATIONS_PER_ROW * channels * x_0[0, 0].numel() * self.unet.dtype.itemsize
        free = min(psutil.virtual_memory().available, MOST_BYTES)
        if x_0.device.type == "cuda":
            unused = torch.cuda.memory_reserved(x_0.device) - torch.cuda.memory_allocated(x_0.device)
            free = torch.cuda.mem_get_info(x_0.device)[0] + unused
        return max(2, min(MOST_ROWS.get(x_0.device.type, 8), int(0.7 * free / bytes_per_row)))


def _without_tf32() -> AbstractContextManager[None]:
    """Within the block, CUDA's convolutions in float32 are just that: by default they round as float16 does."""
    cudnn = torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    return cudnn.flags(**kept, allow_tf32=False)


def _check_coarse(labels: np.ndarray, grid: tuple[int, int], num_segments: int) -> None:
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != grid or not whole or labels.min() < 0 or labels.max() >= num_segments:
        raise ValueError(
            f"coarse_labels must be whole numbers from 0 to {num_segments - 1} (num_segments - 1) on this picture's "
            f"low-resolution grid, {grid[0]} rows of {grid[1]}"
        )


def _free_draw(settings: Settings, steps: tuple[Step, ...]) -> bool:
    """Whether the inversion's last row is the first draw of features."""
    return settings.feature_timestep == steps[-1].t


def _rows_to_read(settings: Settings, steps: tuple[Step, ...]) -> int:
    return settings.feature_draws - _free_draw(settings, steps) + len(steps)


def _rows_of(settings: Settings, steps: tuple[Step, ...], count: int) -> int:
    """Rows for `count` masks."""
    return (2 if settings.two_sided else 1) * count * len(steps)


def _judge(sketch: Segmentation, responses: np.ndarray, known: np.ndarray) -> Segmentation:
    """The segmentation by the `responses` (k, 3, H, W) that are `known` (k,); elsewhere it is as in the `sketch`."""
    differences = np.linalg.norm(responses, axis=1)
    labels, confidence = label(differences)
    ready = known[sketch.naive_labels]
    return replace(
        sketch,
        labels=np.where(ready, labels, sketch.naive_labels),
        confidence=np.where(ready, confidence, 0),
        responses=responses.astype(np.float16),
        differences=differences,
    )


class _Counter:
    """Turns the rows that the stages of a run yield into its progress."""

    def __init__(self, total: int) -> None:
        self.done, self.total = 0, total

    def progress(self, stage: str, sketch: Segmentation | None = None) -> Progress:
        return Progress(stage, self.done, self.total, sketch)

    def count(self, stage: str, run: Generator[int, None, object]) -> Generator[Progress, None, object]:
        for rows in (results := Results(run)):
            self.done += rows
            yield self.progress(stage)
        return results.value


def _noise_like(x_0: Tensor, seed: int) -> Callable[[], Tensor]:
    """Successive draws of noise in the shape of `x_0`: on the CPU, so that they do not depend on the device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(x_0.shape, generator=generator).to(x_0.device)
