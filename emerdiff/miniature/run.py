"""A run of the miniature's training: its state, which checkpoints hold, its optimizers, and its log."""

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from ..loading import fast_dtype
from ..pipeline import EmerDiffPipeline
from . import model

DROPPED_CAPTIONS = 0.3  # trained with the empty prompt, which is the one the method uses

ENDS = ("conv_in", "conv_out", "patch_embedding")  # layers from and to pixels or latents
MOMENTUM = 0.95  # of Muon, Nesterov's
OF_START = 0.5  # share of the weights that a run started from in its result (WiSE-FT, Wortsman et al. 2022)

log = logging.getLogger("emerdiff.miniature.train")


class Clock:
    """A training's time; on a CPU processor time per thread, so that a busy machine trains as much as a quiet one."""

    def __init__(self, device: torch.device, minutes: float) -> None:
        self.device, self.minutes = device, minutes
        self.before, self.started = 0.0, self.now()  # seconds of earlier runs; when this one started

    def now(self) -> float:
        """Seconds."""
        return time.process_time() / torch.get_num_threads() if self.device.type == "cpu" else time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training so far, earlier runs included."""
        return self.before + self.now() - self.started

    @property
    def share(self) -> float:
        """Share of the time that has passed: 0 to 1, then beyond."""
        return self.seconds / (60 * self.minutes)


class Run:
    """Everything that training changes, and thus everything that a checkpoint holds."""

    def __init__(
        self,
        out: Path,
        device: torch.device,
        minutes: float,
        tokenizer: CLIPTokenizer,
        *,
        vae: AutoencoderTiny | None = None,
        seed: int,
    ) -> None:
        """`vae`: the autoencoder of the pipeline to start from, of any width; None for a new one."""
        torch.manual_seed(seed)
        self.out, self.device, self.clock = out, device, Clock(device, minutes)
        self.step, self.encoded = 0, False
        self.beginning: list[Tensor] = []  # the denoiser's weights in the pipeline to start from, if there is one
        self.tokenizer, self.no_caption = tokenizer, tokens(tokenizer, [""]).to(device)
        self.scheduler = model.new_scheduler()
        self.vae = (vae or model.new_vae()).to(device, memory_format=torch.channels_last)
        self.unet = model.new_unet().to(device, memory_format=torch.channels_last)
        self.text_encoder = model.new_text_encoder(self.tokenizer).to(device)
        if fast_dtype(device) == torch.bfloat16:  # there, fused attention's backward takes two fifths of a step
            self.unet.set_attn_processor(AttnProcessor())
            self.text_encoder.set_attn_implementation("eager")
        self.denoiser = nn.ModuleList([self.unet, self.text_encoder])
        weights, others = inner_weights(self.denoiser)
        options = {"lr": torch.zeros((), device=device), "betas": (0.9, 0.99), "capturable": device.type == "cuda"}
        self.vae_optimizer = torch.optim.AdamW(self.vae.parameters(), **options, weight_decay=0)
        self.muon = LayersMuon(weights, lr=torch.zeros((), device=device), weight_decay=0.01)
        self.adamw = torch.optim.AdamW(others, **options, weight_decay=0.01)
        self.vae_average = EMAModel(self.vae.parameters(), decay=0.998, foreach=True)
        self.average = self._new_average()
        names = ("vae", "denoiser", "vae_optimizer", "muon", "adamw", "vae_average", "average")
        self.parts = {name: getattr(self, name) for name in names}

    def _new_average(self) -> EMAModel:
        """Short at first: over a thousand steps, a decay of 0.999 alone would keep a third of the initial weights."""
        return EMAModel(self.denoiser.parameters(), decay=0.999, use_ema_warmup=True, power=0.75, foreach=True)

    @property
    def share(self) -> float:
        return self.clock.share

    def save(self, next_seed: int) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"seconds": self.clock.seconds, "step": self.step, "next_seed": next_seed}
        state |= {"encoded": self.encoded, "scaling_factor": self.vae.config.scaling_factor}
        save_whole(state, self.out / "checkpoint.pt")

    def resume(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.vae.register_to_config(scaling_factor=state["scaling_factor"])
        self.clock.before, self.step, self.encoded = state["seconds"], state["step"], state["encoded"]
        log.info("resumed at step %d, %.0f %% of the time", self.step, 100 * self.share)

    def start_from(self, pipeline: EmerDiffPipeline) -> None:
        """Begin with the networks of a finished pipeline instead of random ones.

        Its autoencoder stays as it is. Its text encoder gets this run's vocabulary.
        """
        self.unet.load_state_dict(pipeline.unet.state_dict())
        model.start_text_encoder(self.text_encoder, self.tokenizer, pipeline.text_encoder, pipeline.tokenizer)
        self.average = self.parts["average"] = self._new_average()
        self.beginning = [weight.detach().clone() for weight in self.denoiser.parameters()]
        self.encoded = True

    def prompts(self, tokens: Tensor) -> Tensor:
        """(n, 77) int64, of which some are replaced by the empty prompt."""
        told = torch.rand(len(tokens), 1, device=self.device) >= DROPPED_CAPTIONS
        return torch.where(told, tokens.long(), self.no_caption)

    def export(self) -> None:
        """Write OUT/pipeline: diffusers layout, averaged weights, half precision, shards under 10 MB.

        `OF_START` of the weights is still what the run started from.
        """
        self.average.store(self.denoiser.parameters())
        self.average.copy_to(self.denoiser.parameters())
        if self.beginning:
            for weight, first in zip(self.denoiser.parameters(), self.beginning, strict=True):
                weight.data.lerp_(first, OF_START)
        parts = {name: copy.deepcopy(getattr(self, name)).half() for name in ("unet", "vae", "text_encoder")}
        self.average.restore(self.denoiser.parameters())
        pipeline = EmerDiffPipeline(**parts, tokenizer=self.tokenizer, scheduler=self.scheduler)
        pipeline.save_pretrained(self.out / "pipeline", max_shard_size="9MB")


def mixed_precision(device: torch.device) -> torch.autocast:
    """bfloat16 where the device has units for it; a CPU without them takes eight times as long with it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fast_dtype(device) != torch.float32)


def save_whole(state: object, file: Path) -> None:
    """The file is complete or as it was."""
    part = file.with_suffix(".tmp")
    torch.save(state, part)
    part.replace(file)


def tokens(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:  # (n, 77) int64
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def as_matrix(weight: Tensor) -> Tensor:
    """(out, in) as it is; (out, in, height, width) as (out, height * width * in): a view where channels are last."""
    return weight.permute(0, 2, 3, 1).flatten(1) if weight.ndim == 4 else weight


class LayersMuon(torch.optim.Optimizer):
    """torch's Muon, which takes only matrices, on the weights of linear and convolution layers.

    Weights of one shape take their steps together: one by one, they take a GPU longer than the network.
    The rates suit AdamW too (Liu et al. 2025, "Muon is scalable", section 2.2).
    """

    def __init__(self, weights: list[nn.Parameter], *, lr: float | Tensor, weight_decay: float) -> None:
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for weight in weights:
            shapes.setdefault(as_matrix(weight).shape, []).append(weight)
        super().__init__([{"params": alike} for alike in shapes.values()], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            weights, rate = [weight for weight in group["params"] if weight.grad is not None], group["lr"]
            if not weights:
                continue
            gradient = torch.stack([as_matrix(weight.grad) for weight in weights])  # (n, out, in)
            state = self.state[weights[0]]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(gradient)
            momentum = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
            update = orthogonal(gradient.lerp(momentum, MOMENTUM)).float() * (0.2 * math.sqrt(max(gradient.shape[1:])))
            matrices = [as_matrix(weight) for weight in weights]
            torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
            torch._foreach_sub_(matrices, (rate * update).unbind())


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, out, in) -> nearly the closest matrices with orthonormal rows or columns; bfloat16 where that is fast.

    Five Newton–Schulz iterations with Muon's coefficients leave singular values of about 0.7 to 1.2.
    """
    x = matrices.bfloat16() if fast_dtype(matrices.device) != torch.float32 else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x


def inner_weights(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights of inner linear and convolution layers; all other parameters (ends, norms, biases, embeddings)."""
    layers = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)}
    weights = [layer.weight for name, layer in layers.items() if not name.endswith(ENDS)]
    inner = {id(weight) for weight in weights}
    return weights, [p for p in network.parameters() if id(p) not in inner]


def set_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """In place, as a recorded step reads it from where it was."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].fill_(rate)


def optimize(optimizers: Sequence[torch.optim.Optimizer], module: nn.Module, loss: Tensor) -> None:
    module.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


class Recorded:
    """A step of training, (tensors) -> loss; on a GPU, recorded as a CUDA graph, and replayed with other tensors.

    A step has thousands of small kernels: to launch them one by one takes several times longer than to run them. The
    tensors must have the same shapes in all calls, and the step must not read any back. The first call takes four
    steps with its tensors.
    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self.step, self.graph = step, None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if tensors[0].device.type != "cuda":
            return self.step(*tensors)
        if self.graph is None:
            self._record(tensors)
        for held, given in zip(self.held, tensors, strict=True):
            held.copy_(given)
        self.graph.replay()
        return self.loss.clone()

    def _record(self, tensors: Sequence[Tensor]) -> None:
        self.held = [tensor.clone() for tensor in tensors]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # so that optimizers and libraries have what they allocate once
            for _ in range(3):
                self.step(*self.held)
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.step(*self.held)


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
