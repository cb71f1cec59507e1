"""EmerDiff (Namekata, Sabour, Fidler and Kim, ICLR 2024, arXiv 2401.11739) as a diffusers pipeline.

The method is `_read` and `_segment`, in the paper's order.
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from . import autoencoder
from .attention import recorded_layers
from .batches import Results, in_batches, rows_that_fit
from .checking import check_parts
from .hooks import exclusive, record
from .inversion import Inversion, Step, invert, predict, step_at
from .layers import find_layers, native_latent_side
from .masks import response
from .modulation import replay
from .picture import SIDE_MULTIPLE, Picture
from .progress import INVERTING, PAINTING, READING, Done, Progress, counted, filled, of_stage, part
from .prompt import Encoder, Prompt, encode_empty
from .reading import Fitted, Known, Reading, Seen, check_coarse, fit, known, known_of_same, see
from .recut import cuts, granular
from .segmentation import Segmentation
from .segments import cluster_together, draw_features
from .settings import AUTO, PRESETS, Settings

UNUSED = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))  # parts that checkpoints may have
MOST_TOGETHER = 8  # pictures of a set: what is read of each one stays in memory


class EmerDiffPipeline(DiffusionPipeline):
    """Segments pictures with a text-to-image latent diffusion model: no training, labels or prompt.

    It is made from the parts of a Stable Diffusion 1.x, 2.x or XL checkpoint; `from_pretrained`, `.to()`,
    `save_pretrained` and offloading are diffusers'. Raises `ValueError` with the reason if the U-Net's architecture is
    not supported or the parts do not fit together. Several threads may use one pipeline at the same time.

        pipe = emerdiff.load("miniature")
        segmentation = pipe("street.jpg", pipe.settings(num_segments=12))
    """

    share_attention = True
    """Compute once what all rows of a replay share. If off, each row computes it for itself, with the same result."""

    model_cpu_offload_seq = "text_encoder->text_encoder_2->unet->vae"
    _optional_components = ["text_encoder_2", "tokenizer_2", *UNUSED]

    def __init__(
        self,
        vae: AutoencoderKL | AutoencoderTiny,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        text_encoder_2: CLIPTextModelWithProjection | None = None,
        tokenizer_2: CLIPTokenizer | None = None,
        defaults: dict | None = None,
        force_zeros_for_empty_prompt: bool = True,
        safety_checker: None = None,
        feature_extractor: None = None,
        image_encoder: None = None,
    ) -> None:
        """`defaults` are settings that suit this model better than the paper's; they are kept in model_index.json.

        The second text encoder is Stable Diffusion XL's. `force_zeros_for_empty_prompt`, which its checkpoints have
        too, says that its network knows the empty prompt as zeros. The last three are parts of checkpoints that are
        not used. They are named here so that they need not be downloaded.
        """
        super().__init__()
        self.layers = find_layers(unet)
        step_at(scheduler, 0)  # raises ValueError for a noise schedule that cannot be inverted
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_modules(text_encoder_2=text_encoder_2, tokenizer_2=tokenizer_2, **UNUSED)
        check_parts(vae, self._encoders, unet)
        self.register_to_config(defaults=defaults or {}, force_zeros_for_empty_prompt=force_zeros_for_empty_prompt)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        low, high = (math.isqrt(area) for area in Settings.range_of("image_area"))
        if not low <= self.native_side <= high:
            raise ValueError(f"its pictures must be from {low} to {high} pixels a side, not {self.native_side}")
        try:  # now rather than at the first picture
            step_at(scheduler, self._fit(None).settings.feature_timestep)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the model's default settings are wrong: {error}") from error

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> "EmerDiffPipeline":
        """As in diffusers, but from safetensors files only, and without the safety checker."""
        return super().from_pretrained(pretrained_model_name_or_path, **UNUSED, **{"use_safetensors": True} | kwargs)

    def settings(self, *, preset: str = "exact", **changes) -> Settings:
        """The settings that suit this model, changed by a preset of `PRESETS`, then by `changes`."""
        if preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
        return Settings(**self.config.defaults | PRESETS[preset] | changes)

    @property
    def native_side(self) -> int:
        """Side, in pixels, of the pictures that the model was trained on."""
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

        `settings` default to the model's own, `pipe.settings()`. `coarse_labels`, if given, are used instead of the
        segments that k-means finds: (h, w) whole numbers below `num_segments`; a segment without cells is not
        perturbed, and no pixel responds to it. `progress` is called after each U-Net call; an exception that it raises
        ends the run. `rows_per_batch` limits the rows of one U-Net call; by default, free memory does. It does not
        change the result. Raises `ValueError` for a picture that cannot be read or has only one colour, and for
        settings or labels that do not fit it.
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
        """Like calling the pipeline, but yields the progress after each U-Net call, and returns the result.

        Closing the generator ends the run. While it is suspended, it holds no lock and leaves no hook in the networks.
        """
        seen = self._see(image, settings)
        if coarse_labels is not None:
            check_coarse(coarse_labels, seen)
        read = Known().rows_to_read(seen)
        total = read + _rows_to_perturb(seen, coarse_labels)
        reading = yield from part(counted(self._read(seen, Known(), rows_per_batch), read), total)
        if coarse_labels is None:
            (reading,), (coarse_labels,) = _find_segments([reading])
        total = read + _rows_to_perturb(reading, coarse_labels)
        segmenting = self.segment(reading, coarse_labels=coarse_labels, rows_per_batch=rows_per_batch)
        return (yield from part(segmenting, total, read))

    def read(
        self,
        image: Picture,
        settings: Settings | None = None,
        *,
        previous: Reading | None = None,
        rows_per_batch: int | None = None,
    ) -> Generator[Progress, None, Reading]:
        """The first half of a run: yields its own progress, and returns what `segment` and `probe` need.

        What is still valid of a `previous` reading is not computed again. That is all of it if only the number of
        segments, the strength, the smoothing, `modulation_layer`, `two_sided` or `magnified_decoding` has changed.
        """
        seen = self._see(image, settings)
        held = known(previous, seen)
        return (yield from counted(self._read(seen, held, rows_per_batch), held.rows_to_read(seen)))

    def segment(
        self, reading: Reading, *, coarse_labels: np.ndarray | None = None, rows_per_batch: int | None = None
    ) -> Generator[Progress, None, Segmentation]:
        """The second half of a run, in which the network is perturbed segment by segment; yields its own progress."""
        if coarse_labels is not None:
            check_coarse(coarse_labels, reading)
        else:
            (reading,), (coarse_labels,) = _find_segments([reading])  # (h, w)
        run = self._segment(reading, coarse_labels, rows_per_batch)
        result = yield from counted(run, _rows_to_perturb(reading, coarse_labels))
        self.maybe_free_model_hooks()
        return result

    def segment_together(
        self,
        images: Sequence[Picture],
        settings: Settings | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        rows_per_batch: int | None = None,
    ) -> tuple[Segmentation, ...]:
        """Segment up to `MOST_TOGETHER` pictures with one set of segments: segment i is the same one in all of them.

        `cluster_together` says how they are found; the pictures may differ in size. Each one is then perturbed for
        those segments only that have cells in it; nothing in it responds to the others. `num_segments` is that of the
        whole set. The order of the pictures does not change the segments, and one picture alone gets those of an
        ordinary run. `cuts(*results)` and `merge` cut them all alike. The rest is as in calling the pipeline.

        A run costs the rows of reading each picture, and of each picture's own segments. The readings of all pictures
        are in memory until the last segments are known (`Reading.nbytes` each).
        """
        stream = self.stream_together(images, settings, rows_per_batch=rows_per_batch)
        for event in (run := Results(stream)):
            if progress:
                progress(event)
        return run.value

    def stream_together(
        self, images: Sequence[Picture], settings: Settings | None = None, *, rows_per_batch: int | None = None
    ) -> Generator[Progress, None, tuple[Segmentation, ...]]:
        """Like `segment_together`, but yields the progress after each U-Net call, and returns the results.

        How many rows there are in all is known once the segments are; until then the total is the most it can be.
        """
        if not 1 <= len(images) <= MOST_TOGETHER:
            raise ValueError(f"1 to {MOST_TOGETHER} pictures can be segmented together, not {len(images)}")
        seen = [self._see_one_of(images, i, settings) for i in range(len(images))]
        to_read, done = [Known().rows_to_read(one) for one in seen], 0
        total = sum(to_read) + sum(one.rows_to_segment for one in seen)
        readings = []
        for i, (one, rows) in enumerate(zip(seen, to_read, strict=True)):
            run = counted(self._read(one, Known(), rows_per_batch), rows)
            readings.append((yield from part(run, total, done, picture=i)))
            done += rows
        readings, labels = _find_segments(readings)  # labels: (h, w) each
        to_perturb = [_rows_to_perturb(*one) for one in zip(readings, labels, strict=True)]
        total, results = done + sum(to_perturb), []
        for i, (coarse, rows) in enumerate(zip(labels, to_perturb, strict=True)):
            run = self.segment(readings.pop(0), coarse_labels=coarse, rows_per_batch=rows_per_batch)
            results.append((yield from part(run, total, done, picture=i)))
            done += rows
        return tuple(results)

    def _read(self, seen: Seen, held: Known, rows: int | None) -> Generator[Done, None, Reading]:
        """What no segment changes (paper, section 3.1). What is `held` of an earlier reading is not computed again."""
        prompt = self._encode_prompt(seen.picture.size)  # (1, 77, c)
        x_0 = self._encode(seen.picture) if held.x_0 is None else held.x_0  # (1, 4, H / 8, W / 8)
        rows = rows or rows_that_fit(self.unet, x_0)
        inversion = held.inversion or (yield from self._invert(seen, x_0, prompt, rows))  # x_{t_m}; z_t from t_m down
        features = held.features
        if features is None:
            first = inversion.queries if seen.inverts_a_draw else None  # (1, h * w, c)
            features = yield from of_stage(READING, self._draw_features(seen, x_0, prompt, first, rows))  # (h, w, c)
        return Reading(**vars(seen), prompt=prompt, x_0=x_0, inversion=inversion, features=features)

    def _segment(
        self, reading: Reading, coarse_labels: np.ndarray, rows: int | None
    ) -> Generator[Done, None, Segmentation]:
        """What each segment changes (paper, sections 3.2 and 3.3)."""
        settings, k = reading.settings, reading.settings.num_segments
        coarse = coarse_labels.astype(np.int32)  # (h, w) in 0..k-1
        masks = torch.from_numpy(coarse) == torch.arange(k)[:, None, None]  # (k, h, w)
        signs = torch.tensor([-1, 1] if settings.two_sided else [1])[:, None, None]
        decode, unperturbed = self._decoder(reading)  # unperturbed: (1, 3, H, W)

        def respond(segments: Tensor) -> Generator[int, None, Tensor]:  # (b,)
            offsets = settings.strength * signs * masks[segments, None]  # (b, signs, h, w)
            latents = yield from self._replay(reading, offsets.flatten(0, 1))  # (b * signs, 4, H / 8, W / 8)
            pictures = decode(latents).unflatten(0, offsets.shape[:2])  # (b, signs, 3, H, W)
            minus = pictures[:, 0] if settings.two_sided else unperturbed
            return response(minus, pictures[:, -1], settings.smoothing).cpu()  # (b, 3, H, W)

        blank = reading.blank(coarse, str(self.name_or_path or "unnamed"))
        rows = rows or rows_that_fit(self.unet, reading.x_0)
        return (yield from filled(blank, respond, max(1, rows // len(signs))))  # which has d_i and argmax d_i

    def probe(
        self, reading: Reading, offsets: np.ndarray, *, rows_per_batch: int | None = None
    ) -> Generator[Progress, None, np.ndarray]:
        """The picture as the network paints it when perturbed: (b, H, W, 3) float32, 0 to 255, not clamped.

        `offsets` (b, h, w) are signed strengths, added in each cell to the output of the layer that a run perturbs.
        Yields its progress. Raises `ValueError` for offsets that do not fit the grid or are not finite.
        """
        if offsets.ndim != 3 or offsets.shape[1:] != reading.grid or not np.isfinite(offsets).all():
            h, w = reading.grid
            raise ValueError(f"offsets must be finite numbers, {h} rows of {w} for each picture")

        def paint(some: Tensor) -> Generator[int, None, Tensor]:
            return self._decode((yield from self._replay(reading, some))).cpu()

        rows = rows_per_batch or rows_that_fit(self.unet, reading.x_0)
        run = of_stage(PAINTING, in_batches(torch.from_numpy(offsets).float(), rows, paint))
        painted = yield from counted(run, len(offsets) * len(reading.steps))
        self.maybe_free_model_hooks()
        return (torch.stack(painted).permute(0, 2, 3, 1).numpy() + 1) * 127.5

    def rows(self, settings: Settings, *, previous: Reading | None = None) -> tuple[int, int]:
        """U-Net rows of a run: to read the picture, and to segment it.

        What is still valid of a `previous` reading of the same picture is not read again.
        """
        fitted = self._fit(settings)
        held = known_of_same(previous, fitted) if previous else Known()
        return held.rows_to_read(fitted), fitted.rows_to_segment

    def steps(self, settings: Settings) -> tuple[Step, ...]:
        """The steps of the sampling grid that a run takes, from t_m down."""
        return self._fit(settings).steps

    def features(self, image: Picture, settings: Settings | None = None) -> np.ndarray:
        """The features that a run with these settings clusters: (h, w, c) float32."""
        seen = self._see(image, settings)
        x_0, prompt = self._encode(seen.picture), self._encode_prompt(seen.picture.size)
        for _ in (run := Results(self._draw_features(seen, x_0, prompt, None, rows_that_fit(self.unet, x_0)))):
            pass
        return run.value

    @torch.inference_mode()
    def outputs(
        self, image: Picture, layers: Iterable[str], timestep: int, settings: Settings | None = None
    ) -> dict[str, Tensor]:
        """Outputs (1, ...) of the U-Net's `layers`, by name, for the picture with the noise of `timestep`."""
        seen = self._see(image, settings)
        x_0, step = self._encode(seen.picture), step_at(self.scheduler, timestep)
        x_t = step.add_noise(x_0, _noise_like(x_0, seen.settings.seed)())
        with record(self.unet, layers) as outputs:
            predict(self.unet, x_t, step.t, self._encode_prompt(seen.picture.size))
        return outputs

    def _fit(self, settings: Settings | None) -> Fitted:
        return fit(settings or self.settings(), self.scheduler, self.layers, self.native_side)

    def _see(self, image: Picture, settings: Settings | None) -> Seen:
        levels = len(self.unet.config.block_out_channels)
        multiple = math.lcm(SIDE_MULTIPLE, self.vae_scale_factor * 2 ** (levels - 1))
        return see(image, self._fit(settings), cell=self.vae_scale_factor * self.layers.stride, multiple=multiple)

    def _see_one_of(self, images: Sequence[Picture], i: int, settings: Settings | None) -> Seen:
        try:
            return self._see(images[i], settings)
        except ValueError as error:
            raise ValueError(f"picture {i + 1} of {len(images)}: {error}") from error

    @property
    def _encoders(self) -> dict[str, Encoder]:
        """Tokenizers and text encoders by what their names end with."""
        first, second = (self.tokenizer, self.text_encoder), (self.tokenizer_2, self.text_encoder_2)
        return {"": first} if second == (None, None) else {"": first, "_2": second}

    def _encode_prompt(self, size: tuple[int, int]) -> Prompt:
        """The empty prompt for a picture of (width, height)."""
        zeros, encoders = self.config.force_zeros_for_empty_prompt, list(self._encoders.values())
        with exclusive(self.unet):
            return encode_empty(encoders, self.unet, size, self._execution_device, zeros=zeros)

    def _encode(self, picture: Image.Image) -> Tensor:
        """x_0 (1, 4, h, w) float32."""
        with exclusive(self.unet):
            return autoencoder.encode(self.vae, picture, self._execution_device)

    def _decode(self, latents: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Pictures (b, 3, H, W) float32, about [-1, 1], not clamped; `dtype` as in `autoencoder.decode`."""
        with exclusive(self.unet):
            return autoencoder.decode(self.vae, latents, dtype)

    def _decoder(self, reading: Reading) -> tuple[Callable[[Tensor], Tensor], Tensor | None]:
        """How perturbed latents are decoded, and the unperturbed picture if it is needed."""
        dtype, x_0 = self.unet.dtype, reading.x_0
        half = reading.settings.magnified_decoding and dtype != torch.float32
        reference = self._decode(x_0, dtype) if half else None
        if reference is None or not reference.isfinite().all():  # the latter for Stable Diffusion XL in float16
            return self._decode, None if reading.settings.two_sided else self._decode(x_0)

        def magnified(latents: Tensor) -> Tensor:
            with exclusive(self.unet):
                return autoencoder.decode_magnified(self.vae, latents, dtype, x_0=x_0, reference=reference)

        return magnified, reference

    def _feature(self, settings: Settings) -> str:
        """Name of the module whose outputs are clustered."""
        return f"{self.layers.block[settings.feature_layer]}.to_q"

    def _invert(self, seen: Seen, x_0: Tensor, prompt: Tensor, rows: int) -> Generator[Done, None, Inversion]:
        injected = recorded_layers(self.layers, shared=self.share_attention)
        run = invert(
            self.unet,
            x_0,
            prompt,
            seen.steps,
            noise=_noise_like(x_0, seen.settings.seed),
            recorded=injected if seen.settings.attention_injection else (),
            feature=self._feature(seen.settings),
            rows=rows,
        )
        return of_stage(INVERTING, run)

    def _draw_features(
        self, seen: Seen, x_0: Tensor, prompt: Tensor, first: Tensor | None, rows: int
    ) -> Generator[int, None, np.ndarray]:
        features = yield from draw_features(
            self.unet,
            x_0,
            prompt,
            step_at(self.scheduler, seen.settings.feature_timestep),
            noise=_noise_like(x_0, seen.settings.seed),
            layer=self._feature(seen.settings),
            draws=seen.settings.feature_draws,
            first=first,
            rows=rows,
        )
        if not np.isfinite(features).all():
            raise ValueError("the model computes features that are not finite: it is damaged, or needs dtype float32")
        return features.reshape(*seen.grid, -1)

    def _replay(self, reading: Reading, offsets: Tensor) -> Generator[int, None, Tensor]:
        return replay(
            self.unet,
            reading.inversion,
            reading.prompt,
            offsets.flatten(1).to(reading.prompt.tokens),
            self.layers.modulated_at(reading.settings.modulation_layer),
            attention_injection=reading.settings.attention_injection,
            shared=self.share_attention,
        )


def _noise_like(x_0: Tensor, seed: int) -> Callable[[], Tensor]:
    """Successive draws of noise in the shape of `x_0`: on the CPU, so that they do not depend on the device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(x_0.shape, generator=generator).to(x_0.device)


def _find_segments(readings: Sequence[Reading]) -> tuple[list[Reading], list[np.ndarray]]:
    """The low-resolution segments of pictures (paper, section 3.1), one set for all: coarse labels (h, w) of each.

    Where the settings leave their number open, the readings get the one that is found.
    """
    settings, smallest = readings[0].settings, min(math.prod(reading.grid) for reading in readings)
    most = min(settings.most_segments, smallest)
    labels = cluster_together([reading.features for reading in readings], most, settings.kmeans_n_init)
    if settings.num_segments != AUTO:
        return list(readings), labels
    found = replace(settings, num_segments=most)
    fine = [replace(one, settings=found).blank(own, "") for one, own in zip(readings, labels, strict=True)]
    k = granular(*fine)
    source = "picture" if len(fine) == 1 else "pictures"
    note = f"The number of segments, {k}, follows from the {source}: {most} were found, and those alike merged."
    settings, groups = replace(settings, num_segments=k), cuts(*fine)[k]
    readings = [replace(one, settings=settings, notes=(*one.notes, note)) for one in readings]
    return readings, [groups[own] for own in labels]


def _rows_to_perturb(fitted: Fitted, coarse_labels: np.ndarray | None) -> int:
    """U-Net rows in which the segments that have cells are perturbed; the most there can be before these are known."""
    return fitted.rows_to_segment if coarse_labels is None else fitted.rows_to_perturb(len(np.unique(coarse_labels)))
