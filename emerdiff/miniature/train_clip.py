"""Train the small CLIP from nothing: `python -m emerdiff.miniature.train_clip --out runs/clip --minutes 60`.

It is to say what each region shows, so it learns from words what is where, without labels of pixels or regions. It sees
a picture through windows of 48 x 48 pixels, each by itself. Of drawn scenes it is shown details of that size, about a
ninth of a scene, each with a list of all that is seen in it and how much of it there is, in words ("most of it sky,
some house, a trace of fence"); details with rare things come more often. Photographs come with the words of their
captions.

1. Each patch of a detail is one of the things in its list: the softmax over all nouns must fall on those.
2. Together the patches show as much of each thing as the list says. Without this, what is in most lists, such as the
   sky, is seen everywhere.
3. Each thing in the list is somewhere: the patches that fit it best must show it.
4. A word of photographs' captions tells its photographs from others, by the patches that fit it best.

A rectangle of half of the details is replaced by that of another one, with that one's list: so a patch is known by
itself, and not by what is beside it.

Each noun is put in words anew at every step: a synonym in a template. Worker processes draw scenes; with a GPU, as long
as training lasts, on a CPU all before it starts. Minutes are the processor's on a CPU, as in `train`. A checkpoint is
written every 45 seconds, or on a CPU every five minutes, and with it the model so far, in half precision: OUT/clip. The
same command resumes.
"""

import logging
import math
import os
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

from ..imagetext import MEAN, STD, Clip
from ..maskclip import patch_embeddings, text_embeddings
from ..naming import ImageText, names
from ..quiet import quiet
from . import model
from .options import new_parser, prepared
from .photographs import Photograph, Photographs
from .pictures import FIRST_SEED, Store, Stream
from .run import Clock, LayersMuon, annealed, inner_weights, mixed_precision, optimize, save_whole, set_rate
from .scenes import Scene, draw_details, draw_scene
from .words import SYNONYMS, WORD_OF_CLASS, WORDS

SIDE, WINDOW, PATCH = 144, 48, 8  # of pictures in training, of what the model sees at once, of its patches; in pixels
CELLS = WINDOW // PATCH  # patches in a row of a window
DRAWN_SIDE = 160  # photographs are kept so, and cropped at random
WIDTH, LAYERS, HEADS = 192, 7, 6
TEXT_LENGTH, VOCABULARY = 32, 2048
ROOMS_SHARE, PORTRAITS_SHARE, PHOTOGRAPHS_SHARE = 0.25, 0.05, 0.25
TEMPLATES = ("{}", "a {}", "the {}", "a photo of a {}", "a photo of the {}", "a picture of a {}", "a drawing of a {}")
SHARES = {"most": 0.7, "much": 0.35, "some": 0.16, "little": 0.06, "a trace": 0.015}  # about what the words mean
DETAILS = 16  # of each scene
SCENE_SIDES = (120, 201)  # pixels, of scenes that details are cut from
FREQUENT = 30  # photographs whose captions must have a word for it to be learned
STOP_WORDS = """
a about above across after air all along an and another any are area around as at away back background be behind
being below beside between both by camera can close course day do does doing down during each edge eyes face
five for four from front gets getting goes going group has have he her him his holding holds in inside into is
it its large lone look looking looks many middle nearby near next no of off older on one onto open or other
others out over past photo picture places plays poses posing set several she side six small smaller some someone
something stage takes taking that the their them there these they this three through to together top toward
towards tries trying two under up upside using very view waits wait watch watches way wearing wears what where
which while whilst who with young
"""
UNSEEN = tuple((500_000 + i, "room" if i % 5 == 4 else None) for i in range(40))  # scenes that are scored

log = logging.getLogger("emerdiff.miniature.train_clip")


# ---------------------------------------------------------------- what is learned from


@dataclass(frozen=True)
class Shown:
    picture: np.ndarray
    words: dict[str, float]  # and about which share of the picture each takes up; 1 for all words of photographs
    is_photograph: bool


def draw(turn: tuple[int, Photograph | None], side: int) -> list[Shown]:
    """The pictures of a training seed: a photograph (side, side, 3), or details of a scene, (WINDOW, WINDOW, 3)."""
    seed, photograph = turn
    if photograph:
        return [Shown(photograph.draw(seed, side)[0], dict.fromkeys(words_of(photograph), 1.0), True)]
    rng = np.random.default_rng([seed, 0])
    at, size = rng.random(), int(rng.integers(*SCENE_SIDES))
    kind = "room" if at < ROOMS_SHARE else "portrait" if at < ROOMS_SHARE + PORTRAITS_SHARE else None
    details = draw_details(seed, size, WINDOW, kind, count=DETAILS)
    return [Shown(of.image, {noun: SHARES[word] for noun, word in of.amounts.items()}, False) for of in details]


def words_of(photograph: Photograph) -> tuple[str, ...]:
    """The words of all its captions, and of names of several words the whole name."""
    named = [c.lower().removeprefix("a photo of a ") for c in photograph.captions if c.startswith("a photo of a ")]
    words = re.findall(r"[a-z]+", " ".join(photograph.captions).lower())
    return tuple(sorted(({*words} - {*STOP_WORDS.split()}) | {*named}))


def frequent_words(photographs: Photographs) -> tuple[str, ...]:
    counts = Counter(word for photograph in photographs.found for word in words_of(photograph))
    return tuple(sorted(word for word, count in counts.items() if count >= FREQUENT))


@dataclass(frozen=True)
class Sizes:
    """What fits the device."""

    details: int  # in each step
    photographs: int
    kept_details: int
    kept_photographs: int
    workers: int
    saved_every: float  # seconds

    @classmethod
    def of(cls, device: torch.device) -> "Sizes":
        cores = os.cpu_count() or 2
        if device.type == "cuda":
            return cls(3456, 128, 800_000, 12_000, max(1, cores - 2), 45)
        return cls(192, 6, 32_000, 400, cores, 300)


# ---------------------------------------------------------------- the model


def new_clip(captions: Sequence[str]) -> tuple[CLIPModel, CLIPTokenizer]:
    """A small CLIP, 4 M parameters, and a tokenizer whose merges are learned from captions."""
    tokenizer = model.new_tokenizer(captions, VOCABULARY, TEXT_LENGTH)
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": WINDOW,
        "patch_size": PATCH,
    }
    text = model.text_config(tokenizer)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128, logit_scale_init_value=math.log(10))
    return CLIPModel(config), tokenizer


def read_clip(folder: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    return CLIPModel.from_pretrained(folder, dtype=torch.float32), CLIPTokenizer.from_pretrained(folder)


def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, do_center_crop=False)


def cropped(photographs: Tensor) -> Tensor:
    """Random crops: (b, H, W, 3) uint8 -> (b, 3, SIDE, SIDE) in [0, 1]."""
    count, device = len(photographs), photographs.device
    zoom = uniform(photographs, 0.6, 1.0)
    theta = torch.zeros(count, 2, 3, device=device)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = (1 - zoom)[:, None] * uniform(photographs, -1, 1, 2)
    x = photographs.permute(0, 3, 1, 2).float() / 255
    return F.grid_sample(x, F.affine_grid(theta, [count, 3, SIDE, SIDE], align_corners=False), align_corners=False)


def augmented(x: Tensor) -> Tensor:
    """Flipped or not, in other colours: (b, 3, h, w) in [0, 1] -> normalised."""
    x = torch.where(uniform(x, 0, 1, 1, 1, 1) < 0.5, x, x.flip(3))
    gain, shift = uniform(x, 0.75, 1.25, 1, 1, 1) * uniform(x, 0.92, 1.08, 3, 1, 1), uniform(x, -0.06, 0.06, 1, 1, 1)
    mean, std = (torch.tensor(of, device=x.device).view(3, 1, 1) for of in (MEAN, STD))
    return ((x * gain + shift).clamp(0, 1) - mean) / std


def uniform(x: Tensor, low: float, high: float, *shape: int) -> Tensor:
    """Numbers for each row of x, (b, *shape)."""
    return low + (high - low) * torch.rand(len(x), *shape, device=x.device)


def windows_of(pictures: Tensor) -> Tensor:
    """Side by side, the rows of each picture in order: (b, 3, SIDE, SIDE) -> (b * windows, 3, WINDOW, WINDOW)."""
    windows = pictures.unfold(2, WINDOW, WINDOW).unfold(3, WINDOW, WINDOW)  # (b, 3, rows, columns, WINDOW, WINDOW)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).contiguous()


def pasted(pictures: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the details with a rectangle of others: pictures (b, 3, WINDOW, WINDOW), shares (b, nouns).

    Returns also which nouns may be seen in each patch, (b, CELLS, CELLS, nouns) bool, and about which shares in all.
    """
    half = len(pictures) // 2
    pictures, may = pictures.clone(), (shares > 0)[:, None, None].repeat(1, CELLS, CELLS, 1)
    high, wide = torch.randint(1, CELLS, (2,)).tolist()
    top, left = (int(torch.randint(CELLS - size + 1, ())) for size in (high, wide))
    rows, columns = slice(top, top + high), slice(left, left + wide)
    of_rows, of_columns = (slice(of.start * PATCH, of.stop * PATCH) for of in (rows, columns))
    pictures[:half, :, of_rows, of_columns] = pictures[half : 2 * half, :, of_rows, of_columns]
    may[:half, rows, columns] = may[half : 2 * half, rows, columns]
    part = high * wide / CELLS**2
    mixed = torch.cat([(1 - part) * shares[:half] + part * shares[half : 2 * half], shares[half:]])
    return pictures, may, mixed


# ---------------------------------------------------------------- the losses


def listed_loss(logits: Tensor, may: Tensor, shares: Tensor) -> Tensor:
    """Details' patches and nouns: logits and may (b, h, w, nouns), shares (b, nouns), which add up to 1.

    Every patch is one of the nouns that it may be, all patches together show each noun as much as its share, and every
    listed noun is somewhere, in one patch at least.
    """
    log_p = logits.log_softmax(-1)
    of_list = -log_p.masked_fill(~may, -torch.inf).logsumexp(-1).clamp(min=-8).mean()
    flat, listed = log_p.flatten(1, 2), shares > 0
    all_together = flat.logsumexp(1) - math.log(flat.shape[1])  # (b, nouns)
    as_much = (shares * (shares.clamp(min=1e-6).log() - all_together)).sum(1).mean()
    return of_list + as_much - 0.3 * flat.amax(1)[listed].clamp(min=-8).mean()


def told_loss(logits: Tensor, told: Tensor) -> Tensor:
    """Photographs' patches and words: logits (b, patches, words), told (b, words) whether its captions have it."""
    scores = 2 * ((logits / 2).logsumexp(1) - math.log(logits.shape[1]))  # (b, words)

    def found(dim: int) -> Tensor:
        of_told = scores.masked_fill(~told, -torch.inf).logsumexp(dim) - scores.logsumexp(dim)
        return -of_told[told.any(dim)].mean()

    return (found(0) + found(1)) / 2


# ---------------------------------------------------------------- training


class Training:
    """What training changes, and thus what a checkpoint holds."""

    def __init__(
        self,
        out: Path,
        device: torch.device,
        minutes: float,
        words: tuple[str, ...],
        captions: Sequence[str],
        start: Path | None = None,
    ) -> None:
        """`start`: the folder of a finished model of the same shape to start from; None for a new one."""
        torch.manual_seed(0)
        self.out, self.device, self.clock = out, device, Clock(device, minutes)
        self.clip, self.tokenizer = new_clip(captions) if start is None else read_clip(start)
        if (out / "tokenizer").exists():  # learned again, equally frequent pairs could get other numbers
            self.tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
        self.tokenizer.save_pretrained(out / "tokenizer")
        self.clip.to(device)
        if device.type == "cpu":  # the fused attention's backward is slow there
            self.clip.set_attn_implementation("eager")
        self.nouns, self.words = tuple(SYNONYMS), words
        weights, others = inner_weights(self.clip)
        self.muon = LayersMuon(weights, lr=torch.zeros((), device=device), weight_decay=0.05)
        options = {"lr": torch.zeros((), device=device), "betas": (0.9, 0.98), "capturable": device.type == "cuda"}
        self.adamw = torch.optim.AdamW(others, **options, weight_decay=0.01)
        self.step = 0
        self.rng = np.random.default_rng(0)

    def save(self, next_seed: int) -> None:
        """OUT/checkpoint-*.pt, each below 16 MiB, and OUT/clip."""
        parts = {"clip": self.clip, "muon": self.muon, "adamw": self.adamw}
        state = {name: part.state_dict() for name, part in parts.items()}
        numbers = {"seconds": self.clock.seconds, "step": self.step, "next_seed": next_seed}
        for name, part in {**state, "numbers": numbers}.items():  # the numbers last: without them nothing is resumed
            save_whole(part, self.out / f"checkpoint-{name}.pt")
        self.export()

    def resume(self) -> None:
        for name, part in {"clip": self.clip, "muon": self.muon, "adamw": self.adamw}.items():
            part.load_state_dict(torch.load(self.out / f"checkpoint-{name}.pt", map_location=self.device))
        numbers = torch.load(self.out / "checkpoint-numbers.pt")
        self.clock.before, self.step = numbers["seconds"], numbers["step"]
        log.info("resumed at step %d, %.0f %% of the time", self.step, 100 * self.clock.share)

    def export(self) -> None:
        """Write OUT/clip, in half precision."""
        state = {name: weight.half() for name, weight in self.clip.state_dict().items()}
        half = CLIPModel(self.clip.config).half()
        half.load_state_dict(state)
        with quiet():
            half.save_pretrained(self.out / "clip")
            CLIPProcessor(image_processor(), self.tokenizer).save_pretrained(self.out / "clip")

    def phrases(self, words: Sequence[str]) -> tuple[list[str], Tensor]:
        """A text for each noun and then for each word, and which nouns got the same text, (nouns, nouns)."""
        rng, said = self.rng, []
        for noun in self.nouns:
            ways = SYNONYMS[noun]
            said.append(ways[0 if rng.random() < 0.5 else rng.integers(len(ways))])
        same = torch.tensor([[a == b for b in said] for a in said])
        return [str(rng.choice(TEMPLATES)).format(word) for word in [*said, *words]], same

    def learn(self, scenes: list[Tensor], photographs: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        """One step; the losses of scenes and photographs."""
        (details, shares), count = scenes, len(scenes[0])
        told, words, windows = None, [], []
        if photographs:
            windows, told = [windows_of(augmented(cropped(photographs[0])))], photographs[1]
            used = told.any(0)
            told, words = (
                told[:, used],
                [word for word, is_used in zip(self.words, used.tolist(), strict=True) if is_used],
            )
        texts, same = self.phrases(words)
        same = same.to(self.device).float()
        shares = shares.float() @ same / same.sum(0)  # nouns with the same text share what they have
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-6)
        mixed, may, shares = pasted(augmented(details.permute(0, 3, 1, 2).float() / 255), shares)
        with mixed_precision(self.device):
            patches = patch_embeddings(self.clip, torch.cat([mixed, *windows]))  # (windows, CELLS, CELLS, d)
            phrases = F.normalize(text_embeddings(self.clip, self.tokenizer, texts), dim=-1)
        scale, nouns = self.clip.logit_scale.exp().clamp(max=50), len(self.nouns)
        with torch.autocast(self.device.type, enabled=False):
            patches = scale * F.normalize(patches.float(), dim=-1)
            of_scenes = listed_loss(patches[:count] @ phrases[:nouns].T, may, shares)
            of_photographs = torch.zeros_like(of_scenes)
            if told is not None:
                of_each = patches[count:].reshape(len(told), -1, phrases.shape[1])
                of_photographs = told_loss(of_each @ phrases[nouns:].T, told)
            loss = of_scenes + 0.5 * of_photographs
        set_rate([self.muon, self.adamw], 1e-3 * annealed(self.clock.share, 0, 1))
        optimize([self.muon, self.adamw], self.clip, loss)
        self.step += 1
        return of_scenes.detach(), of_photographs.detach()


def fill(training: Training, stream: Stream, details: Store, photographs: Store, at_least: int = 0) -> None:
    """Keep what has been drawn, and wait for at least so many."""
    room = details.rows - len(details)
    turns = stream.take(min(512, room), at_least=min(at_least, room)) if room else []
    shown = [one for turn in turns for one in turn]
    for store, are_photographs, words in ((details, False, training.nouns), (photographs, True, training.words)):
        some = [one for one in shown if one.is_photograph == are_photographs][: store.rows - len(store)]
        if some:
            pixels = torch.from_numpy(np.stack([one.picture for one in some]))
            store.add(pixels, torch.tensor([[one.words.get(word, 0.0) for word in words] for one in some]))


def balanced(details: Store, count: int) -> list[Tensor]:
    """So many of the details, those with rare things more often."""
    pixels, shares = (tensor[: len(details)] for tensor in details.tensors)
    usual = shares.float().mean(0).clamp(min=1e-4)
    at = torch.multinomial((shares / usual.sqrt()).sum(1), count, replacement=True)
    return [pixels[at], shares[at]]


def train(
    out: Path, device: torch.device, *, minutes: float, photographs: Photographs, start: Path | None, first_seed: int
) -> None:
    """Train, or continue to train, for `minutes` in all; the result is OUT/clip."""
    out.mkdir(parents=True, exist_ok=True)
    sizes = Sizes.of(device)
    numbers = out / "checkpoint-numbers.pt"
    next_seed = torch.load(numbers)["next_seed"] if numbers.exists() else first_seed
    stream = Stream(next_seed, DRAWN_SIDE, photographs, workers=sizes.workers, ahead=1024, draw=draw)
    unseen = [draw_scene(seed, 256, kind) for seed, kind in UNSEEN]
    told = [caption for photograph in photographs.found for caption in photograph.captions]
    drawn = [draw_scene(FIRST_SEED + i, 32).caption for i in range(200)]
    synonyms = [word for words in SYNONYMS.values() for word in words]
    words = frequent_words(photographs)
    training = Training(out, device, minutes, words, [*told, *drawn, *synonyms * 5], start)
    weights = sum(p.numel() for p in training.clip.parameters())
    log.info("%d words of photographs, %.2f M parameters", len(words), weights / 1e6)
    side = (DRAWN_SIDE, DRAWN_SIDE, 3)
    detail = (WINDOW, WINDOW, 3)
    kept = Store(sizes.kept_details, device, (detail, torch.uint8), ((len(SYNONYMS),), torch.float16))
    rows = sizes.kept_photographs if words else 0
    kept_photographs = Store(rows, device, (side, torch.uint8), ((len(words),), torch.bool))
    if numbers.exists():
        training.resume()
    at_first = kept.rows if device.type == "cpu" else 4 * sizes.details
    while len(kept) < at_first or words and len(kept_photographs) < sizes.photographs:
        fill(training, stream, kept, kept_photographs, at_least=128)
        log.info("%d details and %d photographs kept", len(kept), len(kept_photographs))
    if not numbers.exists():
        training.clock.started = training.clock.now()  # drawing the first pictures does not count
    told_at = saved_at = time.monotonic()
    losses = []
    while training.clock.share < 1:
        fill(training, stream, kept, kept_photographs)
        details, some = balanced(kept, sizes.details), kept_photographs.sample(sizes.photographs) if words else None
        losses.append(torch.stack(training.learn(details, some)))
        now = time.monotonic()
        if now - told_at > 10:
            of_scenes, of_photographs = torch.stack(losses).mean(0).tolist()
            line = (
                "%.1f %% of the time, step %d, losses %.3f and %.3f, %.1f steps/s, %d details and %d photographs kept"
            )
            speed, counts = len(losses) / (now - told_at), (len(kept), len(kept_photographs))
            log.info(line, 100 * training.clock.share, training.step, of_scenes, of_photographs, speed, *counts)
            told_at, losses = now, []
        if now - saved_at > sizes.saved_every:
            training.save(stream.next_seed)
            log.info(
                "%.1f %% of regions got the right word", 100 * score(training.clip, training.tokenizer, unseen).mean()
            )
            saved_at = time.monotonic()
    training.save(stream.next_seed)
    stream.close()
    right = score(training.clip, training.tokenizer, unseen)
    log.info("done: step %d, %.1f %% of %d regions got the right word", training.step, 100 * right.mean(), len(right))


# ---------------------------------------------------------------- the score


def score(clip: CLIPModel, tokenizer: CLIPTokenizer, scenes: Sequence[Scene]) -> np.ndarray:  # (regions,) bool
    """Whether each true region over 2 % of its picture gets the right word of 23, from the mean of its embeddings."""
    return np.array([true == best for true, best in named(Clip("", clip, tokenizer, SIDE, MEAN, STD), scenes)])


def named(model: ImageText, scenes: Sequence[Scene]) -> list[tuple[int, int]]:
    """Of each such region: the index in `WORDS` of the true word, and of the one that it gets."""
    pairs = []
    for scene in scenes:
        truth = WORD_OF_CLASS[scene.labels]
        best = names([(truth, model.embed(scene.image))], WORDS, model, len(WORDS.groups)).best()
        shares = np.bincount(truth.ravel(), minlength=len(best)) / truth.size
        pairs += [(int(true), int(best[true])) for true in np.flatnonzero(shares > 0.02)]
    return pairs


def main() -> None:
    parser = new_parser("train_clip", __doc__.split("\n")[0], out="runs/clip", minutes=60)
    parser.add_argument("--start", type=Path, metavar="DIR", help="a finished model, such as OUT/clip, to start from")
    options = vars(parser.parse_args())
    photographs = prepared(parser, options.pop("photographs"), PHOTOGRAPHS_SHARE)
    train(options.pop("out"), torch.device(options.pop("device")), photographs=photographs, **options)


if __name__ == "__main__":
    main()
