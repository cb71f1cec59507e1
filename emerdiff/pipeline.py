"""EmerDiff (Namekata, Sabour, Fidler and Kim, ICLR 2024, arXiv 2401.11739) as a diffusers pipeline."""

import math
from collections.abc import Callable, Generator, Iterable
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
from .coloring import by_segment, color
from .hooks import exclusive, record
from .inversion import Inversion, Step, invert, predict, sampling_steps, step_at, thinned
from .layers import find_layers, native_latent_side
from .masks import label, response, upsample_naive
from .modulation import replay
from .picture import SIDE_MULTIPLE, Picture, open_picture, size_for_network, to_tensor
from .segmentation import Segmentation
from .segments import cluster, draw_features
from .settings import PRESETS, Settings

MOST_ROWS = {"cpu": 16, "cuda": 64, "mps": 16}  # of one U-Net call: more gain nothing
MOST_BYTES = 2 * 2**30  # off CUDA: 9 rows of Stable Diffusion in bfloat16, 10 s that who stops a run has to wait
ACTIVATIONS_PER_ROW = 60  # memory of one more row, in feature maps of the first level; measured 25 to 45


@dataclass(frozen=True)
class Progress:
    """How far a run is: U-Net rows done, of all."""

    stage: str
    done: int
    total: int


class EmerDiffPipeline(DiffusionPipeline):
    """Segments pictures with a text-to-image latent diffusion model: no training, labels or prompt.

    Made from the parts of a Stable Diffusion 1.x or 2.x checkpoint; `from_pretrained`, `.to()`,
    `save_pretrained` and offloading are the library's. Raises `ValueError` with the reason where the U-Net is
    not of a supported architecture. A pipeline may be used by several threads at once.

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
        step_at(scheduler, 0)  # refuses what the U-Net may predict other than noise or velocity
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.register_modules(safety_checker=None, feature_extractor=None)
        self.register_to_config(defaults=defaults or {})
        try:
            self.settings()  # checked now rather than at the first picture
        except (TypeError, ValueError) as error:
            raise ValueError(f"the model's default settings are wrong: {error}") from error
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)

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
        a picture that cannot be read, or for settings or labels that do not fit it.
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
        settings, steps, grid, k = seen.settings, seen.steps, seen.grid, seen.settings.num_segments
        if k > math.prod(grid):
            raise ValueError(
                f"num_segments is {k}, but this picture's low-resolution grid has only {grid[1]} x {grid[0]} = "
                f"{math.prod(grid)} cells: choose at most that many, or a larger image_area"
            )
        if coarse_labels is not None:
            _check_coarse(coarse_labels, grid, k)
        free_draw = settings.feature_timestep == steps[-1].t  # the inversion has this very row
        sides = 2 if settings.two_sided else 1
        counter = _Counter(settings.feature_draws - free_draw + len(steps) + sides * k * len(steps))

        prompt = self._encode_prompt()
        x_0 = self._encode(seen.picture)
        rows = rows_per_batch or self._rows_that_fit(x_0)
        inversion: Inversion = yield from counter.count(
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
                feature=f"{self.layers.feature}.to_q",
                rows=rows,
            ),
        )
        features: np.ndarray = yield from counter.count(
            "reading features",
            self._draw_features(x_0, prompt, settings, rows, first=inversion.queries if free_draw else None),
        )
        if coarse_labels is None:
            coarse = cluster(features, k, settings.kmeans_n_init).reshape(grid)
        else:
            coarse = coarse_labels.astype(np.int32)
        colors = color(coarse) if settings.shared_rows else None
        perturbed, count = (coarse, k) if colors is None else (colors, int(colors.max()) + 1)
        masks = torch.from_numpy(perturbed.reshape(1, -1)) == torch.arange(count)[:, None]  # (count, cells)
        counter.total = counter.done + sides * count * len(steps)
        responses = yield from counter.count(
            "modulating segments",
            self._responses(inversion, prompt, x_0, masks, settings, rows_per_batch or self._rows_that_fit(x_0)),
        )
        if colors is not None:
            responses = by_segment(responses, colors, coarse, k)
        differences = np.linalg.norm(responses, axis=1)
        labels, confidence = label(differences)
        self.maybe_free_model_hooks()
        return Segmentation(
            image=np.asarray(seen.picture),
            labels=labels,
            coarse_labels=coarse,
            features=features.reshape(*grid, -1),
            responses=responses.astype(np.float16),
            differences=differences,
            naive_labels=upsample_naive(coarse, k, seen.picture.size[::-1]),
            confidence=confidence,
            original_size=seen.original_size,
            settings=settings,
            model=str(self.name_or_path or "unnamed"),
            notes=seen.notes,
        )

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

    def _see(self, image: Picture, settings: Settings | None) -> "_Seen":
        original = open_picture(image)
        settings, steps, notes = self._fit(settings or self.settings())
        multiple = math.lcm(SIDE_MULTIPLE, self.vae_scale_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))
        size = size_for_network(original.size, settings.image_area, keep_aspect=settings.keep_aspect, multiple=multiple)
        grid = tuple(side // (self.vae_scale_factor * self.layers.stride) for side in reversed(size))
        picture = original.resize(size, Image.Resampling.LANCZOS)
        return _Seen(picture, original.size, grid, settings, steps, notes)

    def _fit(self, settings: Settings) -> tuple[Settings, tuple[Step, ...], tuple[str, ...]]:
        """Settings as this model can run them, the steps from t_m down, and sentences on what was changed."""
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
        tokens = self.tokenizer(
            "", padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        with exclusive(self.unet):
            hidden = self.text_encoder(tokens.input_ids.to(self._execution_device))[0]
        return hidden.to(self.unet.dtype)

    @torch.inference_mode()
    def _encode(self, picture: Image.Image) -> Tensor:
        """x_0 (1, 4, h, w) float32: the posterior's mean, scaled."""
        with exclusive(self.unet):
            encoded = self.vae.encode(to_tensor(picture).to(self._execution_device, self.vae.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
        return latents.float() * self.vae.config.scaling_factor

    @torch.inference_mode()
    def _decode(self, latents: Tensor) -> Tensor:
        """Pictures (b, 3, H, W) float32, about [-1, 1]; not clamped, so that small differences survive."""
        with exclusive(self.unet):
            return self.vae.decode((latents / self.vae.config.scaling_factor).to(self.vae.dtype)).sample.float()

    def _draw_features(
        self, x_0: Tensor, prompt: Tensor, settings: Settings, rows: int, *, first: Tensor | None = None
    ) -> Generator[int, None, np.ndarray]:
        return draw_features(
            self.unet,
            x_0,
            prompt,
            step_at(self.scheduler, settings.feature_timestep),
            noise=_noise_like(x_0, settings.seed),
            layer=f"{self.layers.feature}.to_q",
            draws=settings.feature_draws,
            first=first,
            rows=rows,
        )

    @torch.inference_mode()
    def _responses(
        self,
        inversion: Inversion,
        prompt: Tensor,
        x_0: Tensor,
        masks: Tensor,
        settings: Settings,
        rows: int,
    ) -> Generator[int, None, np.ndarray]:
        """G(I+) - G(I-) of all segments, (k, 3, H, W) float32, for k `masks`; yields the rows of each U-Net call."""
        signs = torch.tensor([-1, 1] if settings.two_sided else [1])
        unmodulated = () if settings.two_sided else (self._decode(x_0),)

        def response_of(latents: Tensor) -> Tensor:  # a segment's sides, (sides, 4, h, w) -> (3, H, W)
            minus, plus = (*unmodulated, *self._decode(latents).split(1))
            return response(minus, plus, settings.smoothing)[0].cpu()

        def modulated(masks: Tensor) -> Rows:
            offsets = settings.strength * masks[:, None] * signs[:, None]  # (b, sides, cells)
            latents = yield from replay(
                self.unet,
                inversion,
                prompt,
                offsets.flatten(0, 1).to(prompt),
                self.layers,
                attention_injection=settings.attention_injection,
                shared=self.share_attention,
            )
            return [response_of(sides) for sides in latents.unflatten(0, (-1, len(signs)))]

        return torch.stack((yield from in_batches(masks, max(1, rows // len(signs)), modulated))).numpy()

    def _rows_that_fit(self, x_0: Tensor) -> int:
        """Rows of one U-Net call for latents like `x_0` in the memory that is free now."""
        channels = self.unet.config.block_out_channels[0]
        bytes_per_row = ACTIVATIONS_PER_ROW * channels * x_0[0, 0].numel() * self.unet.dtype.itemsize
        free = min(psutil.virtual_memory().available, MOST_BYTES)
        if x_0.device.type == "cuda":
            unused = torch.cuda.memory_reserved(x_0.device) - torch.cuda.memory_allocated(x_0.device)
            free = torch.cuda.mem_get_info(x_0.device)[0] + unused
        return max(2, min(MOST_ROWS.get(x_0.device.type, 8), int(0.7 * free / bytes_per_row)))


@dataclass(frozen=True)
class _Seen:
    """A picture and settings as the network gets them."""

    picture: Image.Image
    original_size: tuple[int, int]  # (width, height)
    grid: tuple[int, int]  # (h, w)
    settings: Settings
    steps: tuple[Step, ...]  # from t_m down
    notes: tuple[str, ...]


def _check_coarse(labels: np.ndarray, grid: tuple[int, int], num_segments: int) -> None:
    whole = np.issubdtype(labels.dtype, np.integer)
    if labels.shape != grid or not whole or labels.min() < 0 or labels.max() >= num_segments:
        raise ValueError(
            f"coarse_labels must be whole numbers from 0 to {num_segments - 1} (num_segments - 1) on this picture's "
            f"low-resolution grid, {grid[0]} rows of {grid[1]}"
        )


class _Counter:
    """Turns the rows that the stages of a run yield into its progress."""

    def __init__(self, total: int) -> None:
        self.done, self.total = 0, total

    def count(self, stage: str, run: Generator[int, None, object]) -> Generator[Progress, None, object]:
        for rows in (results := Results(run)):
            self.done += rows
            yield Progress(stage, self.done, self.total)
        return results.value


def _noise_like(x_0: Tensor, seed: int) -> Callable[[], Tensor]:
    """Successive draws of noise in the shape of `x_0`: on the CPU, so that they do not depend on the device."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(x_0.shape, generator=generator).to(x_0.device)
