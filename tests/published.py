"""The published procedure, word for word and one row at a time: what the package's shortcuts must agree with.

Shares nothing with the package but the networks. Attention is written out, and is where queries and keys are
read and replaced; the noise schedule is written out for Stable Diffusion's settings.
"""

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import convolve
from sklearn.cluster import KMeans

BLOCK = "up_blocks.1.attentions"  # the 16x16 one, in Stable Diffusion 1.x and in the small pipelines
FIRST = f"{BLOCK}.0.transformer_blocks.0.attn2"
THIRD = f"{BLOCK}.2.transformer_blocks.0.attn2"


@dataclass
class Control:
    """What the attention layers do during the next call of the network."""

    recorded: dict | None = None  # queries and keys by layer are written here
    injected: dict | None = None  # ... or are taken from here
    offset: torch.Tensor | None = None  # (cells,), added to each channel of the third layer's output


@dataclass
class Attention:
    """Plain attention, as a diffusers attention processor."""

    name: str
    control: Control

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if self.control.recorded is not None:
            self.control.recorded[self.name] = q, k
        if self.control.injected is not None:
            q, k = self.control.injected[self.name]
        q, k, v = (x[0].unflatten(-1, (attn.heads, -1)).transpose(0, 1) for x in (q, k, v))  # (heads, tokens, c)
        weights = torch.softmax(q @ k.transpose(1, 2) / q.shape[-1] ** 0.5, dim=-1)
        output = attn.to_out[0]((weights @ v).transpose(0, 1).flatten(1)[None])
        if self.name == THIRD and self.control.offset is not None:
            output = output + self.control.offset[None, :, None]
        return output


@dataclass
class Published:
    """One picture's run; the attributes are there when the constructor returns."""

    pipe: object
    picture: Image.Image
    size: tuple[int, int]  # (width, height)
    num_segments: int = 6
    feature_timestep: int = 1
    feature_draws: int = 1
    steps: int = 50
    t_m: int = 281
    strength: float = 10.0
    n_init: int = 100
    seed: int = 42
    velocity: bool = False
    attention_injection: bool = True
    control: Control = field(default_factory=Control)

    @torch.inference_mode()
    def __post_init__(self):
        self.unet, self.vae = copy.deepcopy(self.pipe.unet), self.pipe.vae
        names = [name.removesuffix(".processor") for name in self.unet.attn_processors]
        self.unet.set_attn_processor({f"{name}.processor": Attention(name, self.control) for name in names})
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas = torch.cumprod(1 - betas, 0).tolist()
        self.gap = 1000 // self.steps
        self.grid = [i * self.gap + 1 for i in range(self.steps)]  # ascending: 1, 21, ..., 981
        self.prompt, self.x_0 = self.encode()
        x, z = self.invert()
        self.coarse = self.cluster()
        start = [t for t in self.grid if t <= self.t_m][::-1]
        attention = {t: {} for t in start}
        self.replayed = self.replay(x, z, start, record=attention)
        self.differences = np.stack([self.difference(x, z, start, attention, i) for i in range(self.num_segments)])
        self.labels = self.differences.argmax(0)

    def encode(self):
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        tokens = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
        pixels = np.asarray(self.picture.convert("RGB").resize(self.size, Image.Resampling.LANCZOS)) / 127.5 - 1
        pixels = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        return encoder(tokens)[0], self.vae.encode(pixels).latent_dist.mean * 0.18215

    def noise(self, generator):
        return torch.randn(self.x_0.shape, generator=generator)

    def add_noise(self, t, generator):
        return self.alphas[t] ** 0.5 * self.x_0 + (1 - self.alphas[t]) ** 0.5 * self.noise(generator)

    def call(self, x_t, t):
        return self.unet(x_t, t, encoder_hidden_states=self.prompt).sample

    def mu_and_var(self, x_t, t):
        a, a_p = self.alphas[t], self.alphas[max(t - self.gap, 0)]  # final_alpha_cumprod is that of t = 0
        eps = self.call(x_t, t)
        if self.velocity:
            eps = a**0.5 * eps + (1 - a) ** 0.5 * x_t
        x_0 = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
        var = (1 - a_p) / (1 - a) * (1 - a / a_p)
        return a_p**0.5 * x_0 + (1 - a_p - var) ** 0.5 * eps, var

    def invert(self):
        """x_t and z_t of the whole grid."""
        generator = torch.Generator().manual_seed(self.seed)
        x = {t: self.add_noise(t, generator) for t in self.grid}
        z = {}
        for t in reversed(self.grid):
            mu, var = self.mu_and_var(x[t], t)
            z[t] = (x.get(t - self.gap, self.x_0) - mu) / var**0.5
        return x, z

    def cluster(self):
        generator = torch.Generator().manual_seed(self.seed)
        queries = []
        for _ in range(self.feature_draws):
            self.control.recorded = {}
            self.call(self.add_noise(self.feature_timestep, generator), self.feature_timestep)
            queries.append(self.control.recorded[FIRST][0][0])
        self.control.recorded = None
        kmeans = KMeans(self.num_segments, n_init=self.n_init, random_state=1234)
        return kmeans.fit(torch.stack(queries).mean(0).numpy()).labels_

    def replay(self, x, z, timesteps, record=None, inject=None, offset=None):
        x_t = x[timesteps[0]]
        for t in timesteps:
            self.control.recorded = record and record[t]
            self.control.injected = inject and inject[t]
            self.control.offset = offset if t == timesteps[0] else None
            mu, var = self.mu_and_var(x_t, t)
            x_t = mu + var**0.5 * z[t]
        self.control.recorded = self.control.injected = self.control.offset = None
        return x_t

    def difference(self, x, z, timesteps, attention, i):
        line = np.exp(-0.5 * (np.array([-1, 0, 1]) / 0.8) ** 2)
        kernel = np.outer(line, line) / line.sum() ** 2
        blurred = []
        for c in (-self.strength, self.strength):
            offset = torch.tensor(c * (self.coarse == i), dtype=torch.float32)
            x_0 = self.replay(x, z, timesteps, inject=attention if self.attention_injection else None, offset=offset)
            picture = self.vae.decode(x_0 / 0.18215).sample[0].numpy()  # (3, H, W)
            blurred.append(np.stack([convolve(channel, kernel, mode="mirror") for channel in picture]))
        return np.sqrt(((blurred[1] - blurred[0]) ** 2).sum(0))
