"""The published procedure, step by step and one row at a time, for tests and the benchmark to compare with.

It shares nothing with the package except the networks. Attention layers record their queries and keys or use given
ones, the noise schedule is written out for Stable Diffusion's settings, and what networks are told beside the prompt
comes from the library's own pipelines.
"""

import copy
from dataclasses import dataclass, field

import diffusers
import numpy as np
import torch
from PIL import Image
from scipy.ndimage import convolve
from sklearn.cluster import KMeans


@dataclass
class Control:
    """What the attention layers do during the next call of the network."""

    recorded: dict | None = None  # queries and keys by layer are written here
    injected: dict | None = None  # ... or read from here
    offset: torch.Tensor | None = None  # (cells,), added to each channel of the perturbed layer's output


@dataclass
class Attention:
    """Plain attention, as a diffusers attention processor."""

    name: str
    modulated: bool
    control: Control

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if self.control.recorded is not None:
            self.control.recorded[self.name] = q, k
        if self.control.injected is not None:
            q, k = self.control.injected[self.name]
        q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (1, heads, tokens, c)
        output = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        output = attn.to_out[0](output)
        if self.modulated and self.control.offset is not None:
            output = output + self.control.offset[None, :, None]
        return output


@dataclass
class Published:
    """The procedure for one picture with one pipeline, whose U-Net is copied; `run` returns the labels."""

    pipe: object
    picture: Image.Image
    size: tuple[int, int]  # (width, height)
    num_segments: int = 6
    feature_timestep: int = 1
    feature_draws: int = 1
    feature_layer: str = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    modulation_layer: str = "up_blocks.1.attentions.2.transformer_blocks.0.attn2"
    steps: int = 50
    lowest: int = 1  # timestep: 0 without an offset, 19 for 50 steps with trailing spacing
    ends_clean: bool = False  # set_alpha_to_one
    t_m: int = 281
    strength: float = 10.0
    n_init: int = 100
    seed: int = 42
    velocity: bool = False
    attention_injection: bool = True
    control: Control = field(default_factory=Control)
    rows: int = 0  # calls of the U-Net so far
    decodes: int = 0

    def __post_init__(self):
        self.unet, self.vae = copy.deepcopy(self.pipe.unet), self.pipe.vae
        names = [name.removesuffix(".processor") for name in self.unet.attn_processors]
        self.unet.set_attn_processor(
            {f"{name}.processor": Attention(name, name == self.modulation_layer, self.control) for name in names}
        )
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        self.alphas = torch.cumprod(1 - betas, 0).tolist()
        self.gap = 1000 // self.steps
        self.grid = [i * self.gap + self.lowest for i in range(self.steps)]  # ascending: 1, 21, ..., 981

    @torch.inference_mode()
    def run(self) -> np.ndarray:
        """Labels (H, W); intermediate results are kept as attributes."""
        self.encode()
        x, z = self.invert()
        self.coarse = self.cluster()
        start = [t for t in self.grid if t <= self.t_m][::-1]
        attention = {t: {} for t in start}
        self.replayed = self.replay(x, z, start, record=attention)
        self.differences = np.stack([self.difference(x, z, start, attention, i) for i in range(self.num_segments)])
        self.labels = self.differences.argmax(0)
        return self.labels

    def example(self):
        """One call of each kind: an unperturbed row, a perturbed one and a decoding."""
        self.encode()
        self.control.recorded = attention = {}
        self.call(self.x_0, self.t_m)
        self.control.recorded, self.control.injected = None, attention
        self.call(self.x_0, self.t_m)
        self.control.injected = None
        self.decode(self.x_0)

    def encode(self):
        tokenizer, encoder = self.pipe.tokenizer, self.pipe.text_encoder
        tokens = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
        pixels = np.asarray(self.picture.convert("RGB").resize(self.size, Image.Resampling.LANCZOS)) / 127.5 - 1
        pixels = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
        encoded = self.vae.encode(pixels.to(self.vae.device, self.vae.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
        self.told = {"encoder_hidden_states": encoder(tokens.to(encoder.device))[0]}
        self.x_0 = latents * self.vae.config.scaling_factor
        if "text_encoder_2" in self.pipe.components and self.pipe.text_encoder_2 is not None:
            self.told = self.told_by_xl()
        if width := self.unet.config.time_cond_proj_dim:
            embedding = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
            self.told["timestep_cond"] = embedding(None, torch.tensor([8.5 - 1]), width).to(self.x_0)

    def told_by_xl(self):
        names = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "scheduler")
        parts = {name: self.pipe.components[name] for name in names}
        zeros = {"force_zeros_for_empty_prompt": self.pipe.config.force_zeros_for_empty_prompt}
        library = diffusers.StableDiffusionXLPipeline(**parts, **zeros, add_watermarker=False)
        _, empty, _, pooled = library.encode_prompt("a prompt", do_classifier_free_guidance=True)
        size = self.size[::-1]
        ids = library._get_add_time_ids(size, (0, 0), size, torch.float32, pooled.shape[-1]).to(self.x_0.device)
        return {"encoder_hidden_states": empty, "added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}

    def noise(self, generator):
        return torch.randn(self.x_0.shape, generator=generator).to(self.x_0)

    def add_noise(self, t, generator):
        return self.alphas[t] ** 0.5 * self.x_0 + (1 - self.alphas[t]) ** 0.5 * self.noise(generator)

    def call(self, x_t, t):
        self.rows += 1
        return self.unet(x_t, t, **self.told).sample

    def decode(self, x_0):
        self.decodes += 1
        return self.vae.decode(x_0 / self.vae.config.scaling_factor).sample[0]

    def mu_and_var(self, x_t, t):
        a, a_p = self.alphas[t], self.alphas[max(t - self.gap, 0)]  # final_alpha_cumprod is that of t = 0, or 1
        if self.ends_clean and t < self.gap:
            a_p = 1.0
        eps = self.call(x_t, t)
        if self.velocity:
            eps = a**0.5 * eps + (1 - a) ** 0.5 * x_t
        x_0 = (x_t - (1 - a) ** 0.5 * eps) / a**0.5
        var = (1 - a_p) / (1 - a) * (1 - a / a_p)
        return a_p**0.5 * x_0 + max(1 - a_p - var, 0) ** 0.5 * eps, var

    def invert(self):
        """x_t and z_t of all timesteps in the grid."""
        generator = torch.Generator().manual_seed(self.seed)
        x = {t: self.add_noise(t, generator) for t in self.grid}
        z = {}
        for t in reversed(self.grid):
            mu, var = self.mu_and_var(x[t], t)
            z[t] = (x.get(t - self.gap, self.x_0) - mu) / (var**0.5 or 1)
        return x, z

    def cluster(self):
        generator = torch.Generator().manual_seed(self.seed)
        queries = []
        for _ in range(self.feature_draws):
            self.control.recorded = {}
            self.call(self.add_noise(self.feature_timestep, generator), self.feature_timestep)
            queries.append(self.control.recorded[self.feature_layer][0][0])
        self.control.recorded = None
        kmeans = KMeans(self.num_segments, n_init=self.n_init, random_state=1234)
        return kmeans.fit(torch.stack(queries).mean(0).cpu().float().numpy()).labels_

    def replay(self, x, z, timesteps, record=None, inject=None, offset=None):
        x_t = x[timesteps[0]]
        for t in timesteps:
            self.control.recorded = record and record[t]
            self.control.injected = inject and inject[t]
            self.control.offset = offset if t == timesteps[0] else None
            mu, var = self.mu_and_var(x_t, t)
            x_t = mu + (var**0.5 or 1) * z[t]  # a last step without variance adds what is left
        self.control.recorded = self.control.injected = self.control.offset = None
        return x_t

    def difference(self, x, z, timesteps, attention, i):
        line = np.exp(-0.5 * (np.array([-1, 0, 1]) / 0.8) ** 2)
        kernel = np.outer(line, line) / line.sum() ** 2
        blurred = []
        for c in (-self.strength, self.strength):
            offset = torch.tensor(c * (self.coarse == i)).to(self.x_0)
            x_0 = self.replay(x, z, timesteps, inject=attention if self.attention_injection else None, offset=offset)
            picture = self.decode(x_0).cpu().float().numpy()  # (3, H, W)
            blurred.append(np.stack([convolve(channel, kernel, mode="mirror") for channel in picture]))
        return np.sqrt(((blurred[1] - blurred[0]) ** 2).sum(0))
