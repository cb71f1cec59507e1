"""Train the miniature from nothing: `python -m emerdiff.miniature.train --out runs/miniature --minutes 24`.

Worker processes draw scenes. The autoencoder is trained on them first, then the denoiser, on their latents, which stay
on the device. With a GPU, scenes are drawn as long as training lasts; on a CPU, all before the denoiser starts.

1. `autoencoder` (17 % of the time), on crops: L1 and L2, also of the differences between neighbouring pixels at three
   resolutions, with a little noise on the latents.
2. `denoiser`, on the scenes at a quarter of their side (to 40 %), then at half of it (to 75 %), as Stable Diffusion
   began at 256 x 256: at a sixteenth and a quarter of the cost, composition and layout are learned there. Half of the
   timesteps are those at which a picture's layout is decided.
3. `denoiser`, on the scenes at their full side (the rest), at all timesteps alike.

The denoiser has Stable Diffusion's noise schedule. It predicts the velocity, as Stable Diffusion 2.1's does: where it
predicts the noise, an error of 1 % at the noisiest steps is one of 15 % in the picture, and layout is learned last.

With `--photographs`, your own pictures replace a share of the scenes in all stages.

Minutes are the processor's on a CPU: on a busy machine training lasts longer, and does as much. A checkpoint is written
every few of them; the same command resumes from it. The finished pipeline, with the averaged weights in half precision,
is written to OUT/pipeline. Half of them is still what `--start` gave: between what a network was and what it has
become, it is often better than at either end.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPTokenizer

from ..pipeline import EmerDiffPipeline
from . import model
from .options import new_parser, prepared
from .photographs import Photographs
from .pictures import FIRST_SEED, Store, Stream, random_crops
from .run import Recorded, Report, Run, annealed, mixed_precision, optimize, set_rate, tokens
from .scenes import draw_scene

PHOTOGRAPHS_SHARE = 0.65  # of the pictures, if there are photographs
AUTOENCODER_ENDS, QUARTER_ENDS, HALF_ENDS = 0.17, 0.4, 0.75  # as shares of the time, as are `--stages`
RATE = 1e-3  # of the denoiser
LATENT_NOISE = 0.05  # so that nearby latents decode alike
LAYOUT_TIMESTEPS = (500, 1000)  # at less than the full side, half of the timesteps are drawn from these

log = logging.getLogger("emerdiff.miniature.train")


@dataclass(frozen=True)
class Sizes:
    """What fits the device."""

    autoencoder_crop: int  # side in pixels
    autoencoder_batch: int
    batches: tuple[int, int, int]  # of the denoiser at a quarter of the side, at half of it, at the full side
    drawn: int  # pictures that a step of the denoiser takes at most, once there are enough
    pictures: int  # kept as pixels while the autoencoder trains
    latents: int  # kept for the denoiser; once there are so many, no more scenes are drawn
    drawn_first: bool  # before the denoiser's first step: on a CPU, workers would slow training down severalfold
    workers: int

    @classmethod
    def of(cls, device: torch.device) -> "Sizes":
        cores = os.cpu_count() or 2
        if device.type == "cuda":
            return cls(128, 64, (1024, 512, 192), 64, 8_000, 200_000, False, workers=max(1, cores - 2))
        return cls(64, 16, (256, 96, 32), 512, 3_000, 12_400, True, workers=cores)


# ---------------------------------------------------------------- the stages


def to_pixels(pictures: Tensor) -> Tensor:
    """(b, H, W, 3) uint8 -> (b, 3, H, W) float in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def detail_loss(y: Tensor, x: Tensor) -> Tensor:
    """L1 between the differences of neighbouring pixels, at full, half and quarter resolution: it keeps edges sharp."""
    losses = []
    for _ in range(3):
        losses += [F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (2, 3)]
        y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
    return torch.stack(losses).sum()


def train_autoencoder(run: Run, stream: Stream, sizes: Sizes) -> Store:
    """Trains until its share of the time is up; returns the pictures and tokens that it saw."""
    seen = Store(
        sizes.pictures, run.device, ((model.SIDE, model.SIDE, 3), torch.uint8), ((model.TEXT_LENGTH,), torch.int32)
    )
    report = Report(run, "autoencoder")

    def learn(x: Tensor, noise: Tensor) -> Tensor:
        with mixed_precision(run.device):
            y = run.vae.decoder(run.vae.encoder(x) + LATENT_NOISE * noise).float()
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + detail_loss(y, x)
        optimize([run.vae_optimizer], run.vae, loss)
        return loss.detach()

    learn, cells = Recorded(learn), sizes.autoencoder_crop // 8
    while run.share < AUTOENCODER_ENDS:
        if drawn := seen.take(stream, sizes.autoencoder_batch, at_least=sizes.autoencoder_batch):
            pictures, captions = zip(*drawn, strict=True)
            seen.add(torch.from_numpy(np.stack(pictures)), tokens(run.tokenizer, captions))
        x = random_crops(to_pixels(seen.sample(sizes.autoencoder_batch)[0]), sizes.autoencoder_crop)
        set_rate([run.vae_optimizer], 2e-3 * annealed(run.share, 0, AUTOENCODER_ENDS))
        noise = torch.randn(len(x), 4, cells, cells, device=run.device)
        loss = learn(x.contiguous(memory_format=torch.channels_last), noise)
        run.vae_average.step(run.vae.parameters())
        report(loss, len(x), len(seen), stream.next_seed)
    return seen


@torch.no_grad()
def encode(run: Run, pictures: Tensor) -> list[Tensor]:
    """(n, H, W, 3) uint8 -> latents, not scaled, at a quarter of the side, at half of it and at the full side.

    Shapes (n, 4, H/32, W/32), (n, 4, H/16, W/16), (n, 4, H/8, W/8).
    """
    sides = [[], [], []]
    with mixed_precision(run.device):
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
    """Add the scenes that are ready, `at_most` of them, or more if that takes `at_least` rows to be kept in all."""
    if drawn := kept.take(stream, at_most, at_least=at_least):
        pictures, captions = zip(*drawn, strict=True)
        latents = encode(run, torch.from_numpy(np.stack(pictures)))
        kept.add(*(x * run.vae.config.scaling_factor for x in latents), tokens(run.tokenizer, captions))


def draw_timesteps(count: int, device: torch.device, *, layout: bool) -> Tensor:
    t = torch.randint(1000, (count,), device=device)
    if layout:
        t[::2] = torch.randint(*LAYOUT_TIMESTEPS, t[::2].shape, device=device)
    return t


SIDES = ("a quarter of the side", "half the side", "the full side")


def train_denoiser(
    run: Run, stream: Stream, kept: Store, stage: int, batch: int, drawn: int, *, begin: float, until: float
) -> None:
    """Velocity prediction (as SD 2.1's) on the scenes at the side SIDES[stage], until that share of the time.

    The learning rate has its warm-up at the share `begin`, and its end at the end of the last stage.
    """
    def learn(noisy: Tensor, t: Tensor, prompts: Tensor, velocity: Tensor) -> Tensor:
        with mixed_precision(run.device):
            text = run.text_encoder(prompts).last_hidden_state
            predicted = run.unet(noisy, t, text).sample
        loss = F.mse_loss(predicted.float(), velocity)
        optimize([run.muon, run.adamw], run.denoiser, loss)
        return loss.detach()

    learn, report = Recorded(learn), Report(run, f"denoiser at {SIDES[stage]}")
    while run.share < until:
        draw_latents(run, stream, kept, drawn, at_least=4 * batch)
        *latents, captions = kept.sample(batch)
        x_0 = latents[stage].float().contiguous(memory_format=torch.channels_last)
        eps, t = torch.randn_like(x_0), draw_timesteps(batch, run.device, layout=until < 1)
        noisy, velocity = run.scheduler.add_noise(x_0, eps, t), run.scheduler.get_velocity(x_0, eps, t)
        set_rate([run.muon, run.adamw], RATE * annealed(run.share, begin, 1))
        loss = learn(noisy, t, run.prompts(captions), velocity)
        run.average.step(run.denoiser.parameters())
        report(loss, batch, len(kept), stream.next_seed)


def keep_all(run: Run, stream: Stream, kept: Store, file: Path) -> None:
    """Fill `kept`, saving it to `file` repeatedly; that time does not count as training."""
    began = run.clock.now()
    while len(kept) < kept.rows:
        draw_latents(run, stream, kept, 512, at_least=len(kept) + 512)  # or as many as there is room for
        run.save(stream.next_seed)
        kept.save(file)
    run.clock.started += run.clock.now() - began


def load_tokenizer(out: Path, start: Path | None, photographs: Photographs) -> CLIPTokenizer:
    """The tokenizer of the pipeline to start from; without one, or with photographs, the run's own.

    It is learned from captions of scenes and photographs, and kept in OUT/tokenizer, because a run that resumes must
    find its own: if it were learned again, equally frequent pairs could get other numbers.
    """
    if start and not photographs.found:
        return CLIPTokenizer.from_pretrained(start / "tokenizer")
    if not (out / "tokenizer").exists():
        drawn = [draw_scene(FIRST_SEED + i, 64).caption for i in range(1000)]
        told = [photograph.captions[0] for photograph in photographs.found]
        model.new_tokenizer([*drawn, *told], 2048 if told else 1024).save_pretrained(out / "tokenizer")
    return CLIPTokenizer.from_pretrained(out / "tokenizer")


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
    """Train, or continue to train, for `minutes` in all; the result is OUT/pipeline."""
    out.mkdir(parents=True, exist_ok=True)
    sizes, checkpoint = Sizes.of(device), out / "checkpoint.pt"
    resumed = checkpoint.exists()
    seed = (
        torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["next_seed"] if resumed else first_seed
    )
    latents = out / "latents.pt"
    known = len(torch.load(latents, mmap=True, weights_only=True)[0]) if latents.exists() else 0
    ahead = 512 if known < sizes.latents else 0
    stream = Stream(seed, model.SIDE, photographs, workers=sizes.workers, ahead=ahead)
    tokenizer = load_tokenizer(out, start, photographs)
    begun = EmerDiffPipeline.from_pretrained(start, dtype=torch.float32) if start else None
    run = Run(out, device, minutes, tokenizer, vae=begun and begun.vae, seed=first_seed)
    if begun:
        run.start_from(begun)
    if resumed:
        run.resume(checkpoint)
    shapes = [((4, model.SIDE // by, model.SIDE // by), torch.float16) for by in (32, 16, 8)]
    kept = Store(sizes.latents, device, *shapes, ((model.TEXT_LENGTH,), torch.int32))
    if not run.encoded:
        finish_autoencoder(run, train_autoencoder(run, stream, sizes), kept)
    run.vae.requires_grad_(False)
    if known:
        kept.load(latents)
    if sizes.drawn_first:
        keep_all(run, stream, kept, latents)
    log.info("%d pictures kept", len(kept))
    begin = 0 if start else AUTOENCODER_ENDS
    for stage, (batch, until) in enumerate(zip(sizes.batches, (*stages, 1.0), strict=True)):
        train_denoiser(run, stream, kept, stage, batch, sizes.drawn, begin=begin, until=until)
    run.save(stream.next_seed)
    run.export()
    stream.close()


def main() -> None:
    parser = new_parser("train", __doc__.split("\n")[0], out="runs/miniature", minutes=24)
    parser.add_argument(
        "--start",
        type=Path,
        help="finished pipeline to start from: keeps its autoencoder and, without --photographs, its vocabulary",
    )
    parser.add_argument(
        "--stages",
        type=float,
        nargs=2,
        default=(QUARTER_ENDS, HALF_ENDS),
        metavar=("QUARTER", "HALF"),
        help="shares of the time at which training at a quarter and at half of the side end (default: %(default)s)",
    )
    parser.add_argument(
        "--photographs-share",
        type=float,
        default=PHOTOGRAPHS_SHARE,
        metavar="SHARE",
        help="share of the pictures that are photographs; the others are drawn (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.minutes < 3:
        parser.error("--minutes must be at least 3, for each stage to see some scenes")
    if arguments.first_seed < FIRST_SEED:
        parser.error(f"--first-seed must be at least {FIRST_SEED}: scenes below are for examples, tests and scores")
    if not 0 <= arguments.stages[0] <= arguments.stages[1] <= 1:
        parser.error("--stages must be two shares of the time, from 0 to 1, the first no larger than the second")
    if not 0 < arguments.photographs_share <= 1:
        parser.error("--photographs-share must be above 0 and at most 1")
    options = vars(arguments)
    photographs = prepared(parser, options.pop("photographs"), options.pop("photographs_share"))
    train(options.pop("out"), torch.device(options.pop("device")), photographs=photographs, **options)


if __name__ == "__main__":
    main()
