"""Which model the page starts with, decided from facts about the machine and its owner's wish."""

from contextlib import suppress
from dataclasses import dataclass

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from .kinds import CONFIGURATIONS
from .loading import AUTOMATIC, INDEX, LIGHT, MINIATURE, REVISIONS

STABLE_DIFFUSION = CONFIGURATIONS["v1"]  # 1.5
NEEDED = (INDEX, "text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")  # of its files
LACKING = (
    "This machine has a GPU, but not the weights of Stable Diffusion, so the page starts with the miniature. "
    "Choosing Stable Diffusion fetches them."
)
STABLE_DIFFUSION_LIGHT = next(iter(LIGHT))  # with `AUTOMATIC` as the autoencoder
LIGHT_SETTINGS = {"preset": "preview", "image_area": 384 * 384}  # for `settings`: 12 x 12 cells


@dataclass(frozen=True)
class Facts:
    """What is known when the page starts."""

    device: str
    """The type of the device that models are loaded to: "cuda", "mps" or "cpu"."""
    zerogpu: bool
    """Whether this is a Space with ZeroGPU, where a GPU is lent for each run."""
    at_hand: bool
    """Whether Stable Diffusion's weights are on this machine."""
    wish: str = ""
    """EMERDIFF_MODEL: a Hub id, a folder or a file of the owner's, or "miniature"; empty if nothing is wished."""


@dataclass(frozen=True)
class Start:
    """What the page starts with."""

    model: str
    """For `load`."""
    autoencoder: str | None
    """For `load`."""
    quick: bool
    """Whether its runs are so short that an example's may begin unasked."""
    photographs_first: bool
    """Whether photographs come before drawn scenes: the miniature knows drawn scenes, others photographs."""
    note: str
    """A sentence for the visitor if it is not what a machine like this one could have; else empty."""


def start(facts: Facts) -> Start:
    """Stable Diffusion where a GPU makes it quick and its weights are at hand, else the miniature; a wish comes first.

    The wish may fail to load; `start` without it then says what to take instead.
    """
    gpu = facts.zerogpu or facts.device == "cuda"
    wish = facts.wish.strip()
    model = wish or (STABLE_DIFFUSION if gpu and facts.at_hand else MINIATURE)
    lacking = gpu and not facts.at_hand and not wish
    note = LACKING if lacking else ""
    drawn = model == MINIATURE
    autoencoder = None if gpu or drawn else AUTOMATIC
    return Start(model, autoencoder, quick=gpu or drawn, photographs_first=not drawn, note=note)


def at_hand(name: str = STABLE_DIFFUSION, half: bool = True) -> bool:
    """Whether the weights of a checkpoint on the Hub have been downloaded to this machine.

    `half`: whether half-precision ones are enough. On a CPU they are not, unless the Hub cannot be reached.
    """
    revision = REVISIONS.get(name)

    def cached(file: str) -> bool:
        with suppress(HFValidationError):  # it is no id, but a folder that is gone
            return isinstance(try_to_load_from_cache(name, file, revision=revision), str)
        return False

    return all(
        cached(file)
        if file == INDEX
        else cached(f"{file}.safetensors") or (half and cached(f"{file}.fp16.safetensors"))
        for file in NEEDED
    )
