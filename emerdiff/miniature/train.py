"""Train the miniature from nothing: `python -m emerdiff.miniature.train --out runs/miniature --minutes 24`.

Scenes are drawn by worker processes, each seen first by the autoencoder, then, as latents that stay on the
device, by the denoiser; beside a GPU for as long as training lasts, on a CPU all before the denoiser starts:

1. `autoencoder` (17 % of the time), on crops: L1 and L2, with a little noise on the latents.
2. `denoiser`, on the scenes at a quarter of their side (to 40 %), then at half of it (to 75 %), as Stable Diffusion
   began at 256 x 256: a sixteenth and a quarter of the cost, and what a scene is made of and where it stands is
   learned there. Half of the timesteps are those at which a picture's layout is decided.
3. `denoiser`, on the scenes at their full side (the rest), at all timesteps alike.

The denoiser has Stable Diffusion's noise schedule. It predicts the velocity, as Stable Diffusion 2.1's does: where it
predicts the noise, an error of 1 % at the noisiest steps is one of 15 % in the picture, and layout is learned last.

With `--photographs`, pictures of one's own take the place of a share of the scenes, in all stages.

A checkpoint is written every few minutes; the same command resumes from it. The finished pipeline, with
the averaged weights in half precision, is written to OUT/pipeline.
"""

import argparse
import copy
import functools
import logging
import math
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ..pipeline import EmerDiffPipeline
from . import model
from .leaves import draw_leaves
from .photographs import Photograph, Photographs, find_photographs
from .scenes import draw_scene

FIRST_SEED = 1_000_000  # scenes below are never trained on: they are for tests, examples and evaluation
LEAVES_SHARE, ROOMS_SHARE, PORTRAITS_SHARE = 0.15, 0.15, 0.05  # of the pictures; the rest is what its seed draws
PHOTOGRAPHS_SHARE = 0.65  # of the pictures, where there are photographs
DROPPED_CAPTIONS = 0.3  # trained with the empty prompt, which is the one the method uses
AUTOENCODER_ENDS, QUARTER_ENDS, HALF_ENDS = 0.17, 0.4, 0.75  # as shares of the time, as are `--stages`
LATENT_NOISE = 0.05  # so that nearby latents decode alike
LAYOUT_TIMESTEPS = (500, 1000)  # at less than the full side, half of the timesteps are drawn from these

log = logging.getLogger("emerdiff.miniature.train")


@dataclass(frozen=True)
class Sizes:
    """What fits the device."""

    side: int  # of the pictures
    autoencoder_crop: int  # side in pixels
    autoencoder_batch: int
    batches: tuple[int, int, int]  # of the denoiser at a quarter of the side, at half of it, at the full side
    pictures: int  # kept as pixels while the autoencoder trains
    latents: int  # kept for the denoiser; once there are so many, no more scenes are drawn
    drawn_first: bool  # before the denoiser's first step: workers beside a CPU's trainer slow it severalfold
    workers: int

    @classmethod
    def of(cls, device: torch.device) -> "Sizes":
        cores = os.cpu_count() or 2
        if device.type == "cuda":
            return cls(512, 256, 48, (512, 256, 128), 30_000, 400_000, False, workers=max(1, cores - 2))
        return cls(256, 64, 16, (256, 96, 32), 3_000, 12_400, True, workers=cores)


# ---------------------------------------------------------------- pictures


def draw(turn: tuple[int, Photograph | None], side: int) -> tuple[np.ndarray, str]:
    """Picture (side, side, 3) uint8 and caption of a training seed: of its photograph, or drawn where it has none."""
    seed, photograph = turn
    if photograph:
        return photograph.draw(seed, side)
    at = np.random.default_rng([seed, 0]).random()
    if at < LEAVES_SHARE:
        return draw_leaves(seed, side)
    at -= LEAVES_SHARE
    kind = "room" if at < ROOMS_SHARE else "portrait" if at < ROOMS_SHARE + PORTRAITS_SHARE else None
    scene = draw_scene(seed, side, kind)
    return scene.image, scene.caption


class Stream:
    """Pictures drawn ahead by worker processes, at most `ahead` of them waiting; of `photographs` a share.

    The workers are forked: make the stream before anything touches a GPU.
    """

    def __init__(self, first_seed: int, side: int, photographs: Photographs, *, workers: int, ahead: int = 512) -> None:
        self.next_seed, self._photographs, self._closed = first_seed, photographs, False
        self._room = threading.Semaphore(ahead)
        self._drawn: queue.Queue[tuple[np.ndarray, str]] = queue.Queue()
        self._pool = multiprocessing.get_context("fork").Pool(workers, os.nice, (10,))
        threading.Thread(target=self._run, args=(side,), daemon=True).start()

    def _turns(self) -> Iterator[tuple[int, Photograph | None]]:
        while self._room.acquire() and not self._closed:
            self.next_seed += 1
            yield self.next_seed - 1, self._photographs.of(self.next_seed - 1)

    def _run(self, side: int) -> None:
        for drawn in self._pool.imap_unordered(functools.partial(draw, side=side), self._turns()):
            self._drawn.put(drawn)

    def take(self, at_most: int, at_least: int) -> list[tuple[np.ndarray, str]]:
        """The pictures that are ready, waiting only for the first `at_least`."""
        taken: list[tuple[np.ndarray, str]] = []
        while len(taken) < max(at_most, at_least) and (len(taken) < at_least or not self._drawn.empty()):
            taken.append(self._drawn.get())
            self._room.release()
        return taken

    def close(self) -> None:
        self._closed = True
        self._room.release()  # the pool would wait for the seeds' end
        self._pool.terminate()


class Store:
    """Rows of fixed shapes in preallocated tensors on one device, until it is full."""

    def __init__(self, rows: int, device: torch.device, *shapes: tuple[tuple[int, ...], torch.dtype]) -> None:
        self.tensors = [torch.zeros(rows, *shape, dtype=dtype, device=device) for shape, dtype in shapes]
        self.rows, self.length = rows, 0

    def __len__(self) -> int:
        return self.length

    def add(self, *values: Tensor) -> None:
        end = self.length + len(values[0])
        for tensor, value in zip(self.tensors, values, strict=True):
            tensor[self.length : end] = value.to(tensor.device, tensor.dtype)
        self.length = end

    def save(self, file: Path) -> None:
        torch.save([tensor[: len(self)].clone() for tensor in self.tensors], file)

    def load(self, file: Path) -> None:
        self.add(*torch.load(file, weights_only=True))

    def sample(self, count: int) -> list[Tensor]:
        at = torch.randint(len(self), (count,), device=self.tensors[0].device)
        return [tensor[at] for tensor in self.tensors]

    def take(self, stream: Stream, at_most: int, *, at_least: int) -> list[tuple[np.ndarray, str]]:
        """Pictures from `stream` that there is room for, waiting until there will be `at_least` rows in all."""
        room = self.rows - len(self)
        return stream.take(min(at_most, room), at_least=min(at_least - len(self), room))


def random_crops(x: Tensor, side: int) -> Tensor:
    """One random square crop for the whole batch: (b, c, H, W) -> (b, c, side, side)."""
    top, left = (int(torch.randint(size - side + 1, ())) for size in x.shape[-2:])
    return x[..., top : top + side, left : left + side]


# ---------------------------------------------------------------- the run


class Run:
    """Everything that training changes: what a checkpoint holds."""

    def __init__(
        self,
        out: Path,
        device: torch.device,
        minutes: float,
        side: int,
        tokenizer: CLIPTokenizer,
        *,
        vae: AutoencoderTiny | None = None,
        seed: int,
    ) -> None:
        """`vae`: that of the pipeline begun with, of any width; a new one where there is none."""
        torch.manual_seed(seed)
        self.out, self.device, self.minutes = out, device, minutes
        self.started = time.monotonic()
        self.seconds_before, self.step, self.encoded = 0.0, 0, False
        self.tokenizer = tokenizer
        self.scheduler = model.new_scheduler()
        self.vae = (vae or model.new_vae()).to(device, memory_format=torch.channels_last)
        self.unet = model.new_unet(side).to(device, memory_format=torch.channels_last)
        self.text_encoder = model.new_text_encoder(self.tokenizer).to(device)
        if device.type == "cpu":  # the fused attention's backward takes two fifths of a step there
            self.unet.set_attn_processor(AttnProcessor())
            self.text_encoder.set_attn_implementation("eager")
        self.denoiser = nn.ModuleList([self.unet, self.text_encoder])
        self.vae_optimizer = torch.optim.AdamW(self.vae.parameters(), betas=(0.9, 0.99), weight_decay=0)
        weights, others = inner_weights(self.denoiser)
        self.muon = LayersMuon(weights, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        self.adamw = torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.01)
        self.vae_average = EMAModel(self.vae.parameters(), decay=0.998, foreach=True)
        self.average = self._new_average()
        names = ("vae", "denoiser", "vae_optimizer", "muon", "adamw", "vae_average", "average")
        self.parts = {name: getattr(self, name) for name in names}

    def _new_average(self) -> EMAModel:
        """Short at first: over a run of a thousand steps, a decay of 0.999 would keep a third of where it began."""
        return EMAModel(self.denoiser.parameters(), decay=0.999, use_ema_warmup=True, power=0.75, foreach=True)

    @property
    def share(self) -> float:
        """Share of the time that has passed: 0 to 1, then beyond."""
        return (self.seconds_before + time.monotonic() - self.started) / (60 * self.minutes)

    def save(self, next_seed: int) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"seconds": self.share * 60 * self.minutes, "step": self.step, "next_seed": next_seed}
        state |= {"encoded": self.encoded, "scaling_factor": self.vae.config.scaling_factor}
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def resume(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.vae.register_to_config(scaling_factor=state["scaling_factor"])
        self.seconds_before, self.step, self.encoded = state["seconds"], state["step"], state["encoded"]
        log.info("resumed at step %d, %.0f %% of the time", self.step, 100 * self.share)

    def start_from(self, pipeline: EmerDiffPipeline) -> None:
        """Begin with the networks of a finished pipeline in place of random ones: its autoencoder stays as it is."""
        self.unet.load_state_dict(pipeline.unet.state_dict())
        self.text_encoder.load_state_dict(pipeline.text_encoder.state_dict())
        self.average = self.parts["average"] = self._new_average()
        self.encoded = True

    def tokens(self, captions: list[str]) -> Tensor:  # (n, 77) int64
        return self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids

    def text(self, tokens: Tensor) -> Tensor:
        """What the denoiser is told: (n, 77) tokens -> (n, 77, c), some of them replaced by the empty prompt."""
        told = torch.rand(len(tokens), device=self.device) >= DROPPED_CAPTIONS
        prompts = torch.cat([self.tokens([""]).to(self.device), tokens[told].long()])  # the empty one is encoded once
        return self.text_encoder(prompts).last_hidden_state[told.cumsum(0) * told]

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def compiled(self, function):
        """On a CPU as it is: compiling each stage takes minutes there, and a step gets a quarter faster."""
        return function if self.device.type == "cpu" else torch.compile(function, dynamic=False)

    def export(self) -> None:
        """Write OUT/pipeline: diffusers layout, averaged weights, half precision, shards under 10 MB."""
        self.average.store(self.denoiser.parameters())
        self.average.copy_to(self.denoiser.parameters())
        parts = {name: copy.deepcopy(getattr(self, name)).half() for name in ("unet", "vae", "text_encoder")}
        self.average.restore(self.denoiser.parameters())
        pipeline = EmerDiffPipeline(**parts, tokenizer=self.tokenizer, scheduler=self.scheduler)
        pipeline.save_pretrained(self.out / "pipeline", max_shard_size="9MB")


def as_matrix(weight: Tensor) -> Tensor:
    """(out, in) as it is; (out, in, height, width) as (out, height * width * in): a view where channels are last."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


class LayersMuon(torch.optim.Muon):
    """torch's Muon, which takes matrices alone, on the weights of linear and convolution layers."""

    def __init__(self, weights: list[nn.Parameter], **options) -> None:
        self.weights = weights
        super().__init__([as_matrix(weight.detach()) for weight in weights], **options)

    @torch.no_grad()
    def step(self) -> None:
        for matrix, weight in zip(self.param_groups[0]["params"], self.weights, strict=True):
            matrix.grad = as_matrix(weight.grad)
        super().step()


def inner_weights(denoiser: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of inner linear and convolution layers; all other parameters (ends, norms, biases, embeddings)."""
    layers = {name: part for name, part in denoiser.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    weights = [layer.weight for name, layer in layers.items() if not name.endswith(("conv_in", "conv_out"))]
    inner = {id(weight) for weight in weights}
    return weights, [p for p in denoiser.parameters() if id(p) not in inner]


def optimize(
    optimizers: Sequence[torch.optim.Optimizer], rate: float, module: nn.Module, average: EMAModel, loss: Tensor
) -> None:
    module.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    average.step(module.parameters())


def annealed(share: float, begin: float, end: float) -> float:
    """Factor of the learning rate in a stage: 2 % warm-up, then half a cosine to 0.01."""
    done = min(max((share - begin) / (end - begin), 0), 1)
    return min(1, done / 0.02 + 0.01) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


class Report:
    """A log line every 20 seconds and a checkpoint every four minutes."""

    def __init__(self, run: Run, stage: str) -> None:
        self.run, self.stage, self.losses, self.samples = run, stage, [], 0
        self.told = self.saved = time.monotonic()

    def __call__(self, loss: Tensor, samples: int, pool: int, next_seed: int) -> None:
        self.run.step += 1
        self.samples += samples
        self.losses.append(loss.detach())
        now = time.monotonic()
        if now - self.told > 20:
            mean, speed = torch.stack(self.losses).mean().item(), self.samples / (now - self.told)
            line = "%s: %.1f %% of the time, step %d, loss %.4f, %.0f samples/s, %d pictures kept, next seed %d"
            log.info(line, self.stage, 100 * self.run.share, self.run.step, mean, speed, pool, next_seed)
            self.told, self.losses, self.samples = now, [], 0
        if now - self.saved > 240:
            self.run.save(next_seed)
            self.run.export()
            self.saved = now


# ---------------------------------------------------------------- the stages


def to_pixels(pictures: Tensor) -> Tensor:
    """(b, H, W, 3) uint8 -> (b, 3, H, W) float in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(run: Run, stream: Stream, sizes: Sizes) -> Store:
    """Trains until its share of the time is up; returns the pictures and tokens that it saw."""
    seen = Store(
        sizes.pictures, run.device, ((sizes.side, sizes.side, 3), torch.uint8), ((model.TEXT_LENGTH,), torch.int32)
    )
    report = Report(run, "autoencoder")

    def loss_of(x: Tensor) -> Tensor:
        with run.autocast():
            z = run.vae.encoder(x)
            y = run.vae.decoder(z + LATENT_NOISE * torch.randn_like(z)).float()
        return F.l1_loss(y, x) + F.mse_loss(y, x)

    loss_of = run.compiled(loss_of)
    while run.share < AUTOENCODER_ENDS:
        if drawn := seen.take(stream, sizes.autoencoder_batch, at_least=sizes.autoencoder_batch):
            pictures, captions = zip(*drawn, strict=True)
            seen.add(torch.from_numpy(np.stack(pictures)), run.tokens(captions))
        x = random_crops(to_pixels(seen.sample(sizes.autoencoder_batch)[0]), sizes.autoencoder_crop)
        loss = loss_of(x.contiguous(memory_format=torch.channels_last))
        rate = 2e-3 * annealed(run.share, 0, AUTOENCODER_ENDS)
        optimize([run.vae_optimizer], rate, run.vae, run.vae_average, loss)
        report(loss, len(x), len(seen), stream.next_seed)
    return seen


@torch.no_grad()
def encode(run: Run, pictures: Tensor) -> list[Tensor]:
    """(n, H, W, 3) uint8 -> latents, not scaled, at a quarter of the side, at half of it and at the full side.

    Shapes (n, 4, H/32, W/32), (n, 4, H/16, W/16), (n, 4, H/8, W/8).
    """
    sides = [[], [], []]
    with run.autocast():
        for part in pictures.split(32):
            x = to_pixels(part.to(run.device)).contiguous(memory_format=torch.channels_last)
            for latents, shrink in zip(sides, (4, 2, 1), strict=True):
                latents.append(run.vae.encode(F.avg_pool2d(x, shrink)).latents.float())
    return [torch.cat(latents) for latents in sides]


def finish_autoencoder(run: Run, seen: Store, kept: Store) -> None:
    """Freeze the averaged weights, choose the scaling factor, turn the pictures seen into latents."""
    run.vae_average.copy_to(run.vae.parameters())
    run.vae.requires_grad_(False)
    latents = encode(run, seen.tensors[0][: len(seen)])
    scaling_factor = round(1 / latents[-1].std().item(), 5)
    run.vae.register_to_config(scaling_factor=scaling_factor)
    log.info("autoencoder done: scaling factor %.5f", scaling_factor)
    kept.add(*(x * scaling_factor for x in latents), seen.tensors[1][: len(seen)])
    run.encoded = True


def draw_latents(run: Run, stream: Stream, kept: Store, at_most: int, *, at_least: int) -> None:
    """Add the scenes that are ready, `at_most` of them, or more where `at_least` are to be kept in all."""
    if drawn := kept.take(stream, at_most, at_least=at_least):
        pictures, captions = zip(*drawn, strict=True)
        latents = encode(run, torch.from_numpy(np.stack(pictures)))
        kept.add(*(x * run.vae.config.scaling_factor for x in latents), run.tokens(captions))


def draw_timesteps(count: int, device: torch.device, *, layout: bool) -> Tensor:
    t = torch.randint(1000, (count,), device=device)
    if layout:
        t[::2] = torch.randint(*LAYOUT_TIMESTEPS, t[::2].shape, device=device)
    return t


SIDES = ("a quarter of the side", "half the side", "the full side")


def train_denoiser(
    run: Run, stream: Stream, kept: Store, stage: int, batch: int, *, begin: float, until: float
) -> None:
    """Velocity prediction (as SD 2.1's) on the scenes at the side SIDES[stage], until that share of the time.

    The learning rate has its warm-up at the share `begin`, and its end at the end of the last stage.
    """
    report = Report(run, f"denoiser at {SIDES[stage]}")
    unet = run.compiled(run.unet)
    while run.share < until:
        draw_latents(run, stream, kept, batch, at_least=4 * batch)
        *latents, tokens = kept.sample(batch)
        x_0 = latents[stage].float().contiguous(memory_format=torch.channels_last)
        eps, t = torch.randn_like(x_0), draw_timesteps(batch, run.device, layout=until < 1)
        with run.autocast():
            text = run.text(tokens)
            predicted = unet(run.scheduler.add_noise(x_0, eps, t), t, text).sample
        loss = F.mse_loss(predicted.float(), run.scheduler.get_velocity(x_0, eps, t))
        rate = 1e-3 * annealed(run.share, begin, 1)
        optimize([run.muon, run.adamw], rate, run.denoiser, run.average, loss)
        report(loss, batch, len(kept), stream.next_seed)


def load_tokenizer(folder: Path, captions: Sequence[str] = ()) -> CLIPTokenizer:
    """The tokenizer in `folder`, learned first where there is none yet: from captions of scenes, and these.

    Learned twice, equally frequent pairs get other numbers: a run that resumes must find its own.
    """
    if not folder.exists():
        drawn = [draw_scene(FIRST_SEED + i, 64).caption for i in range(1000)]
        vocabulary = 2048 if captions else 1024
        model.new_tokenizer([*drawn, *captions], vocabulary).save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def train(
    out: Path,
    device: torch.device,
    *,
    minutes: float,
    start: Path | None,
    first_seed: int,
    stages: tuple[float, float],
    photographs: Photographs,
) -> None:
    """Train, or go on training, for `minutes` in all; the result is OUT/pipeline."""
    out.mkdir(parents=True, exist_ok=True)
    sizes, checkpoint = Sizes.of(device), out / "checkpoint.pt"
    resumed = checkpoint.exists()
    seed = (
        torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["next_seed"] if resumed else first_seed
    )
    latents = out / "latents.pt"
    ahead = 0 if latents.exists() else 512
    stream = Stream(seed, sizes.side, photographs, workers=sizes.workers, ahead=ahead)
    tokenizer = load_tokenizer((start or out) / "tokenizer", [found.captions[0] for found in photographs.found])
    begun = EmerDiffPipeline.from_pretrained(start, dtype=torch.float32) if start else None
    run = Run(out, device, minutes, sizes.side, tokenizer, vae=begun and begun.vae, seed=first_seed)
    if resumed:
        run.resume(checkpoint)
    elif begun:
        run.start_from(begun)
    shapes = [((4, side, side), torch.float16) for side in (sizes.side // 32, sizes.side // 16, sizes.side // 8)]
    kept = Store(sizes.latents, device, *shapes, ((model.TEXT_LENGTH,), torch.int32))
    if not run.encoded:
        finish_autoencoder(run, train_autoencoder(run, stream, sizes), kept)
    run.vae.requires_grad_(False)
    if latents.exists():
        kept.load(latents)
    elif sizes.drawn_first:
        began = time.monotonic()
        while len(kept) < sizes.latents:
            draw_latents(run, stream, kept, 512, at_least=len(kept) + 512)  # or as many as there is room for
        kept.save(latents)
        run.started += time.monotonic() - began  # does not count as training
    log.info("%d pictures kept", len(kept))
    begin = 0 if start else AUTOENCODER_ENDS
    for stage, (batch, until) in enumerate(zip(sizes.batches, (*stages, 1.0), strict=True)):
        train_denoiser(run, stream, kept, stage, batch, begin=begin, until=until)
    run.save(stream.next_seed)
    run.export()
    stream.close()


def main() -> None:
    parser = argparse.ArgumentParser("python -m emerdiff.miniature.train", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/miniature"), help="folder of checkpoint and result")
    parser.add_argument("--minutes", type=float, default=24, help="of training in all, earlier runs included")
    parser.add_argument(
        "--start", type=Path, help="finished pipeline to begin with: its autoencoder and vocabulary stay as they are"
    )
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help="of scenes, noise: new ones for --start")
    parser.add_argument(
        "--stages",
        type=float,
        nargs=2,
        default=(QUARTER_ENDS, HALF_ENDS),
        metavar=("QUARTER", "HALF"),
        help="shares of the time at which training at a quarter and at half of the side end (%(default)s)",
    )
    parser.add_argument(
        "--photographs",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="folders or tars of pictures and captions: KEY.jpg, .png or .webp, and KEY.txt with a caption a line",
    )
    parser.add_argument(
        "--photographs-share",
        type=float,
        default=PHOTOGRAPHS_SHARE,
        metavar="SHARE",
        help="of the pictures that are photographs; the rest is drawn (%(default)s)",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.minutes < 3:
        parser.error("--minutes must be at least 3, for each stage to see some scenes")
    if arguments.first_seed < FIRST_SEED:
        parser.error(f"--first-seed must be at least {FIRST_SEED}: scenes below are for examples, tests and scores")
    if not 0 <= arguments.stages[0] <= arguments.stages[1] <= 1:
        parser.error("--stages must be two shares of the time, from 0 to 1, the first no larger than the second")
    if not 0 < arguments.photographs_share <= 1:
        parser.error("--photographs-share must be over 0, and at most 1")
    torch.set_float32_matmul_precision("high")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    options = vars(arguments)
    paths, share = options.pop("photographs"), options.pop("photographs_share")
    try:
        photographs = Photographs(find_photographs(paths, workers=os.cpu_count() or 1) if paths else (), share)
    except ValueError as error:
        parser.error(str(error))
    train(options.pop("out"), torch.device(options.pop("device")), photographs=photographs, **options)


if __name__ == "__main__":
    main()
