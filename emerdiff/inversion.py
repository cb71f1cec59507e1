"""Edit-friendly DDPM inversion (Huberman-Spiegelglas et al., arXiv 2304.06140), and its replay.

x_0, x_t     clean and noisy latents, (1, 4, h, w)
eps          the U-Net's noise prediction
alpha_bar    cumulative product of the schedule's alphas at t; `alpha_bar_prev` at the step after it
mu_t(x_t)    mean of x_{t_prev} given x_t
z_t          the noise map that leads from x_t to x_{t_prev}; kept as the residual sqrt(var_t) z_t
"""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import DDIMScheduler, SchedulerMixin, UNet2DConditionModel
from torch import Tensor

from .batches import Rows, in_batches
from .hooks import exclusive, record
from .prompt import Prompt

SCHEDULE = (  # settings of DDIM that determine its noise schedule and sampling grid
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
    "prediction_type",
    "timestep_spacing",
    "steps_offset",
)


@dataclass(frozen=True)
class Step:
    """One step of the sampling grid, from timestep `t` to the one after it."""

    t: int
    alpha_bar: float
    alpha_bar_prev: float
    prediction_type: str

    @property
    def var(self) -> float:
        """Variance of the step for eta = 1; 0 if the last step ends at the noise level at which it began."""
        return (1 - self.alpha_bar_prev) / (1 - self.alpha_bar) * (1 - self.alpha_bar / self.alpha_bar_prev)

    def add_noise(self, x_0: Tensor, noise: Tensor) -> Tensor:
        return math.sqrt(self.alpha_bar) * x_0 + math.sqrt(1 - self.alpha_bar) * noise

    def mean(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        """mu_t, from the U-Net's prediction of the noise or the velocity."""
        signal, noise = math.sqrt(self.alpha_bar), math.sqrt(1 - self.alpha_bar)
        if self.prediction_type == "v_prediction":  # valid even when no signal is left
            x_0, eps = signal * x_t - noise * prediction, signal * prediction + noise * x_t
        else:
            x_0, eps = (x_t - noise * prediction) / signal, prediction
        return math.sqrt(self.alpha_bar_prev) * x_0 + math.sqrt(max(1 - self.alpha_bar_prev - self.var, 0)) * eps


def sampling_steps(scheduler: SchedulerMixin, num_inference_steps: int) -> tuple[Step, ...]:
    """The DDIM sampling grid of a checkpoint, descending in t: 981, 961, ..., 1 for Stable Diffusion and 50 steps."""
    ddim = _ddim(scheduler)
    train_steps = ddim.config.num_train_timesteps
    if num_inference_steps > train_steps:
        raise ValueError(f"num_inference_steps must be at most {train_steps} for this model, not {num_inference_steps}")
    ddim.set_timesteps(num_inference_steps)
    timesteps = [t for t in ddim.timesteps.tolist() if 0 <= t < train_steps]  # offsets and rounding may overshoot
    alpha_bar = ddim.alphas_cumprod.double().tolist()
    alpha_bar_prev = [*(alpha_bar[t] for t in timesteps[1:]), float(ddim.final_alpha_cumprod)]
    return tuple(
        Step(t, alpha_bar[t], prev, ddim.config.prediction_type)
        for t, prev in zip(timesteps, alpha_bar_prev, strict=True)
    )


def thinned(steps: tuple[Step, ...], count: int) -> tuple[Step, ...]:
    """`count` evenly spaced steps, the first and the last among them; each ends where the next one begins.

    A single step is the first, and ends where the last one did.
    """
    kept = [steps[i] for i in sorted({round(i) for i in np.linspace(0, len(steps) - 1, count)})]
    ends = [*(step.alpha_bar for step in kept[1:]), steps[-1].alpha_bar_prev]
    return tuple(replace(step, alpha_bar_prev=end) for step, end in zip(kept, ends, strict=True))


def step_at(scheduler: SchedulerMixin, t: int) -> Step:
    """A step from any timestep, whether on a sampling grid or not, straight to the clean latents."""
    ddim = _ddim(scheduler)
    if t >= ddim.config.num_train_timesteps:
        raise ValueError(f"timesteps must be below {ddim.config.num_train_timesteps} for this model, not {t}")
    return Step(t, ddim.alphas_cumprod.double()[t].item(), 1.0, ddim.config.prediction_type)


def _ddim(scheduler: SchedulerMixin) -> DDIMScheduler:
    """A DDIM scheduler with the noise schedule of a checkpoint's own, which may be of another class.

    It is built from all that the other's configuration holds, including its class's defaults, which `from_config`
    leaves out. Raises `ValueError` if the two schedules differ, as they do for sigmas (EDM) and flows.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None or config.get("use_flow_sigmas") or config.get("timestep_type") == "continuous":
        raise ValueError(
            f"its scheduler, {name}, has another kind of noise schedule: EmerDiff needs an alpha for each "
            "whole timestep, as DDPM and DDIM have"
        )
    shared = {key: config[key] for key in SCHEDULE if key in config}
    shared["set_alpha_to_one"] = config.get("set_alpha_to_one", False)
    for key in ("set_alpha_to_one", "rescale_betas_zero_snr"):
        if type(shared.get(key, False)) is not bool:
            raise ValueError(f"its scheduler's {key} must be true or false, not {shared[key]!r}")
    try:
        with torch.device("cpu"):  # its numbers are needed, even while networks are being made without weights
            ddim = DDIMScheduler(**shared)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the noise schedule of its scheduler, {name}, is not one of DDIM's ({error})") from error
    _check_schedule(ddim, alphas.cpu(), name)
    return ddim


def _check_schedule(ddim: DDIMScheduler, alphas: Tensor, name: str) -> None:
    """Raises `ValueError` for what EmerDiff cannot invert. `alphas` are those of the checkpoint's own scheduler."""
    kind, alpha_bar = ddim.config.prediction_type, ddim.alphas_cumprod
    steps, offset, spacing = (ddim.config[key] for key in ("num_train_timesteps", "steps_offset", "timestep_spacing"))
    if type(offset) is not int or not 0 <= offset < steps:
        raise ValueError(f"its scheduler's steps_offset must be a whole number from 0 to {steps - 1}, not {offset!r}")
    if spacing not in ("leading", "trailing", "linspace"):
        raise ValueError(f"its scheduler's timestep_spacing must be leading, trailing or linspace, not {spacing!r}")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"models that predict {kind!r} are not supported: the model must predict noise or velocity")
    falling = (alpha_bar.diff() <= 0).all() and alpha_bar[0] < 1 and alpha_bar[-1] >= 0  # NaN is not
    if len(alpha_bar) != steps or not falling or (alpha_bar[:-1] <= 0).any():
        raise ValueError(
            "the noise schedule of its scheduler is broken: over its "
            f"{steps} timesteps, alphas_cumprod must fall from below 1 to 0 or above"
        )
    # in some classes, a schedule that leaves no signal ends at 2^-24 rather than at 0
    if alphas.shape != alpha_bar.shape or not torch.allclose(alphas.float(), alpha_bar, rtol=0, atol=2**-24):
        raise ValueError(f"the noise schedule of its scheduler, {name}, differs from DDIM's of the same configuration")
    if alpha_bar[-1] == 0 and kind == "epsilon":
        raise ValueError("its noise schedule ends without any signal, so the model must predict velocity, not noise")


def predict(unet: UNet2DConditionModel, x_t: Tensor, t: int | Tensor, prompt: Prompt) -> Tensor:
    """The U-Net's prediction, in float32, for rows at one timestep or at one each; computed in the U-Net's dtype."""
    with exclusive(unet):
        return unet(x_t.to(prompt.tokens.dtype), t, **prompt.for_rows(len(x_t))).sample.float()


@dataclass(frozen=True)
class InvertedStep:
    """A step, the residual that it needs, and what the attention layers computed in it."""

    step: Step
    x_t: Tensor  # (1, 4, h, w)
    prediction: Tensor  # (1, 4, h, w), of the noise or the velocity
    residual: Tensor  # (1, 4, h, w): x_{t_prev} - mu_t(x_t) = sqrt(var_t) z_t
    recorded: Mapping[str, Tensor]  # outputs of layers in the unperturbed replay, by name, (1, tokens, c)

    def previous(self, x_t: Tensor, prediction: Tensor) -> Tensor:
        """x_{t_prev} of the replay. It adds the residual, not z_t, and so holds even if var_t is 0."""
        return self.step.mean(x_t, prediction) + self.residual


@dataclass(frozen=True)
class Inversion:
    """The noise maps of a picture from t_m down; replaying them from the first x_t returns its latents."""

    steps: tuple[InvertedStep, ...]  # descending in t, from t_m
    queries: Tensor  # (1, cells, c): output of the feature layer at the last step

    def thinned(self, count: int, x_0: Tensor) -> "Inversion":
        """The inversion along `count` of its steps, as `thinned` chooses them; the network is not needed."""
        steps = thinned(tuple(inverted.step for inverted in self.steps), count)
        of = {inverted.step.t: inverted for inverted in self.steps}
        kept = [of[step.t] for step in steps]
        ends = [*(inverted.x_t for inverted in kept[1:]), x_0]
        return replace(
            self,
            steps=tuple(
                replace(inverted, step=step, residual=end - step.mean(inverted.x_t, inverted.prediction))
                for step, inverted, end in zip(steps, kept, ends, strict=True)
            ),
        )


@torch.inference_mode()
def invert(
    unet: UNet2DConditionModel,
    x_0: Tensor,
    prompt: Prompt,
    steps: tuple[Step, ...],
    *,
    noise: Callable[[], Tensor],
    recorded: tuple[str, ...],
    feature: str,
    rows: int,
) -> Generator[int, None, Inversion]:
    """Invert `x_0` (1, 4, h, w) along `steps`, those of the grid from t_m down.

    Each step draws its own `noise`, ascending in t, and its x_t follows from that alone. So the steps above t_m need
    not be run, and those below can be run together, `rows` at a time. Each row also belongs to the unperturbed replay:
    its outputs of the `recorded` layers are kept. Yields the rows of each U-Net call.
    """
    ascending = steps[::-1]
    noisy = [step.add_noise(x_0, noise()) for step in ascending]
    ends = [x_0, *noisy[:-1]]  # where each step leads; the last one leads to the clean latents

    def inverted(at: Tensor) -> Rows:
        timesteps = torch.tensor([ascending[i].t for i in at], device=x_0.device)
        with record(unet, {*recorded, feature}) as outputs:
            predictions = predict(unet, torch.cat([noisy[i] for i in at]), timesteps, prompt)
        yield len(at)
        return [
            (
                InvertedStep(
                    step := ascending[i],
                    noisy[i],
                    prediction := predictions[row : row + 1],
                    ends[i] - step.mean(noisy[i], prediction),
                    {name: outputs[name][row : row + 1] for name in recorded},
                ),
                outputs[feature][row : row + 1],
            )
            for row, i in enumerate(at)
        ]

    done, queries = zip(*(yield from in_batches(torch.arange(len(steps)), rows, inverted)), strict=True)
    return Inversion(done[::-1], queries[0])
