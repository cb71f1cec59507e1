"""Image–text models that tell segments' names: CLIPs, loaded like other checkpoints, and maps that others made."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from .checking import check_tokenizer
from .errors import in_a_line
from .files import check_weights, explained, read_json, read_network, read_tokenizer
from .loading import MINIATURE, best_device, reason
from .maskclip import dense_embeddings, text_embeddings
from .miniature import CLIP
from .naming import ImageText

CLIPS = {  # with weights in safetensors, and public when this was written; the revisions are those that are loaded
    "openai/clip-vit-large-patch14": "32bd64288804d66eefd0ccbe215aa642df71cc41",
}
TEMPLATES = (  # of prompts for a word, whose embeddings are averaged
    "{}",
    "a {}",
    "the {}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "there is a {} in the scene",
)
MOST_KNOWN = 10_000  # words whose embeddings are kept
SMALL_FILES = ("*.json", "*.txt")
MAP = ".npz"
MEAN, STD = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)  # CLIP's, unless a model has others
INSTEAD = f"The small CLIP that comes with this package always loads: {MINIATURE!r}. Known to work: {', '.join(CLIPS)}."


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP whose patches are compared with words (see `maskclip`)."""

    model: str
    """Its name or folder."""
    clip: CLIPModel
    tokenizer: CLIPTokenizer
    side: int
    """Pixels of the shorter side at which it sees pictures."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    _known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    """Embeddings (d,) of words that were asked for before."""

    @property
    def scale(self) -> float:
        return self.clip.logit_scale.exp().item()

    @torch.inference_mode()
    def embed(self, image: np.ndarray) -> np.ndarray:  # (h, w, d) float32
        """Embeddings of a picture's patches (H, W, 3) uint8, which is first resized to this model's side."""
        patch, shorter = self.clip.config.vision_config.patch_size, min(image.shape[:2])
        h, w = (
            max(round(length * self.side / shorter / patch), self.side // patch) * patch for length in image.shape[:2]
        )
        resized = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BICUBIC))
        pixels = (resized / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)
        x = torch.from_numpy(pixels).permute(2, 0, 1).to(self.clip.device, self.clip.dtype)
        return dense_embeddings(self.clip, x).cpu().numpy()

    def similarities(self, embeddings: np.ndarray, words: Sequence[str]) -> np.ndarray:  # (n, words) float32
        """Cosines of embeddings (n, d) with words, each the mean over `TEMPLATES`."""
        unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return unit.astype(np.float32) @ self._texts(words).T

    def _texts(self, words: Sequence[str]) -> np.ndarray:  # (words, d) float32, of length 1
        known = dict(self._known)  # other threads may add to it
        if new := [word for word in dict.fromkeys(words) if word not in known]:
            known |= zip(new, self._encode(new), strict=True)
            self._known.update((word, known[word]) for word in new)
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
        return np.stack([known[word] for word in words])

    @torch.inference_mode()
    def _encode(self, words: Sequence[str]) -> np.ndarray:  # (words, d) float32, of length 1
        texts = [template.format(word) for word in words for template in TEMPLATES]
        found = [text_embeddings(self.clip, self.tokenizer, texts[i : i + 256]) for i in range(0, len(texts), 256)]
        prompts = F.normalize(torch.cat(found), dim=-1).unflatten(0, (len(words), len(TEMPLATES)))
        return F.normalize(prompts.mean(1), dim=-1).cpu().numpy()


@dataclass(frozen=True, eq=False)
class Map:
    """What another model found in one picture, on a grid over the whole of it: class scores, or embeddings.

    Raises `ValueError` if the parts do not fit together.
    """

    model: str
    values: np.ndarray
    """(h, w, n) float: the score of each of n words, or (h, w, d): embeddings in the space of the texts."""
    words: tuple[str, ...]
    texts: np.ndarray | None = None
    """(n, d) float: the words' embeddings; None if the values are scores."""
    scale: float = 1.0
    """What scores or cosines are multiplied by before the softmax."""

    def __post_init__(self) -> None:
        n = len(self.words)
        if self.values.ndim != 3 or not self.values.size:
            raise ValueError(
                f"a map must have rows, columns and values for each of them, not the shape {self.values.shape}"
            )
        width = self.values.shape[2]
        if self.texts is None and width != n:
            raise ValueError(f"scores must be (h, w, {n}), one for each of {n} words, not {self.values.shape}")
        if self.texts is not None and self.texts.shape != (n, width):
            raise ValueError(f"texts must be ({n}, {width}), one for each word, not {self.texts.shape}")
        for name, array in (("map", self.values), ("texts", self.texts)):
            if array is not None and (array.dtype.kind != "f" or not np.isfinite(array).all()):
                raise ValueError(f"the numbers of the {name} must be floating-point and finite")
        if len({word.casefold() for word in self.words}) < n:
            raise ValueError("a map's words must be distinct")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"the scale must be a number above 0, not {self.scale}")

    def embed(self, image: np.ndarray) -> np.ndarray:
        return self.values.astype(np.float32)

    def similarities(self, embeddings: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """Mean scores, or cosines. Raises `ValueError` for words that the map does not have."""
        at = {word.casefold(): i for i, word in enumerate(self.words)}
        if unknown := [word for word in words if word.casefold() not in at]:
            near = get_close_matches(unknown[0], self.words, 3, 0.5) or self.words[:5]
            raise ValueError(f"the map has no word {unknown[0]!r}; it has {', '.join(map(repr, near))} among {len(at)}")
        columns = [at[word.casefold()] for word in words]
        if self.texts is None:
            return embeddings[:, columns]
        unit, texts = (
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (embeddings, self.texts)
        )
        return (unit @ texts[columns].T).astype(np.float32)


def read_map(file: Path) -> Map:
    """A map from an `.npz` file with `words` (n,) and either `scores` (h, w, n) or `embeddings` (h, w, d) and `texts`
    (n, d); it may also have a `scale`, by default 1 for scores and 100 for embeddings.

    Raises `ValueError` that says what is wrong with the file.
    """
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        if "words" not in arrays or ("scores" in arrays) == ("embeddings" in arrays):
            raise ValueError(f"it must have words, and either scores or embeddings and texts; it has {sorted(arrays)}")
        if "embeddings" in arrays and "texts" not in arrays:
            raise ValueError("it has embeddings, and so needs texts: the embeddings of the words")
        texts = arrays.get("texts") if "embeddings" in arrays else None
        scale = float(arrays.get("scale", 1.0 if texts is None else 100.0))
        values = arrays["scores"] if texts is None else arrays["embeddings"]
        return Map(str(file), values, tuple(map(str, np.atleast_1d(arrays["words"]))), texts, scale)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"cannot read {str(file)!r} as a map: {in_a_line(error)}") from error


def load_image_text(model: str | Path = MINIATURE, *, device: str | torch.device | None = None) -> ImageText:
    """A model for names: "miniature", the Hub id or folder of a CLIP, or the `.npz` file of a map (see `read_map`).

    CLIPs are loaded in half precision on CUDA, otherwise in float32; safetensors only, those of `CLIPS` at the
    revisions named there. `device` defaults to CUDA or Apple's MPS if available. Raises `ValueError` that says what is
    wrong with the model and what can be loaded instead.
    """
    if Path(model).suffix == MAP and model != MINIATURE:
        return read_map(Path(model).expanduser())
    device = torch.device(device or best_device())
    try:
        clip = _read(model, torch.float16 if device.type == "cuda" else torch.float32)
        clip.clip.to(device)
    except Exception as error:  # the libraries raise nearly anything for files in the wild
        raise ValueError(f"cannot load {str(model)!r} for names: {reason(error).rstrip('.')}. {INSTEAD}") from error
    return clip


def _read(model: str | Path, dtype: torch.dtype) -> Clip:
    if not str(model).strip():
        raise ValueError("the name is empty")
    folder = CLIP if model == MINIATURE else Path(model).expanduser()
    on_hub = not folder.is_dir()
    if on_hub:
        folder = _download(str(model), SMALL_FILES)
    config = read_json(folder / "config.json")
    if config.get("model_type") != "clip":
        raise ValueError(f"it is a {config.get('model_type', 'model of unknown type')}, and names need a whole clip")
    with explained("its config.json is not that of a CLIP"):
        of_vision = CLIPConfig.from_pretrained(folder, local_files_only=True).vision_config
    tokenizer = read_tokenizer(folder, CLIPTokenizer)
    if on_hub:
        folder = _download(str(model), (*SMALL_FILES, "model*.safetensors"))
    check_weights(folder, CLIPModel)
    clip = read_network(folder, CLIPModel, dtype).eval()
    check_tokenizer(tokenizer, clip.text_model, "")
    sees = _processor(folder)
    size = sees.get("size", of_vision.image_size)
    size = size if isinstance(size, int) else size.get("shortest_edge", of_vision.image_size)
    # A CLIP that sees the whole picture at once is given one of twice its side, in windows: names need some detail.
    side = max(size, 2 * of_vision.image_size) // of_vision.patch_size * of_vision.patch_size
    return Clip(
        str(model), clip, tokenizer, side, tuple(sees.get("image_mean", MEAN)), tuple(sees.get("image_std", STD))
    )


def _processor(folder: Path) -> dict:
    """How the model wants its pictures, as far as that is told."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            found = read_json(folder / name)
            return found.get("image_processor", found)
    return {}


def _download(name: str, wanted: Sequence[str]) -> Path:
    return Path(snapshot_download(name, revision=CLIPS.get(name), allow_patterns=list(wanted)))
