"""The files of a checkpoint's folder: found, looked at, and read, each fault told in a sentence."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedTokenizerBase

from .errors import in_a_line
from .formats import GIT_LFS_POINTER
from .quiet import quiet

LARGEST_JSON = 64 * 2**20  # bytes; tokenizers have some 4 MB
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}  # safetensors' names
MOST_TIMESTEPS = 100_000  # of a noise schedule: more are a mistake that would fill the memory
HALF = "fp16", "bf16"  # variants that are taken first where the full weights are not there


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever the libraries raise over files that people bring, and that can be anything, as `ValueError`."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what} ({in_a_line(error)})") from error


def check_file(path: Path) -> Path:
    """`path` itself, where it is a file that can be read and holds what it should, not a Git LFS pointer."""
    name = _name(path)
    if not path.exists():
        raise ValueError(f"it lacks the file {name}")
    if not path.is_file():
        raise ValueError(f"its {name} is not a file")
    try:
        with path.open("rb") as file:
            start = file.read(len(GIT_LFS_POINTER))
    except OSError as error:
        raise ValueError(f"its {name} cannot be read: {error.strerror}") from error
    if start == GIT_LFS_POINTER:
        raise ValueError(f"its {name} is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    if not start:
        raise ValueError(f"its {name} is empty")
    return path


def read_json(path: Path) -> dict:
    """The JSON object in a file."""
    if check_file(path).stat().st_size > LARGEST_JSON:
        raise ValueError(f"its {_name(path)} has {path.stat().st_size >> 20} MiB, far too many for what it should hold")
    with explained(f"its {_name(path)} is not a valid JSON file"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"its {_name(path)} does not hold a JSON object")
    return content


def read_scheduler(folder: Path, kind: type) -> SchedulerMixin:
    """The scheduler, of the class that its own file names: another would swallow its values without a word."""
    config = read_json(folder / "scheduler_config.json")
    name, steps = config.get("_class_name", kind.__name__), config.get("num_train_timesteps", 1000)
    kind = getattr(diffusers, str(name), None)
    if lacking := [package for package in getattr(kind, "_backends", ()) if not find_spec(package)]:
        raise ValueError(f"its scheduler, {name}, needs {' and '.join(lacking)}: install that, or choose another class")
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
        raise ValueError(f"its scheduler is a {name}, which is none in diffusers {diffusers.__version__}")
    if type(steps) is not int or not 1 <= steps <= MOST_TIMESTEPS:
        raise ValueError(f"its num_train_timesteps must be a whole number from 1 to {MOST_TIMESTEPS}, not {steps!r}")
    with explained(f"its scheduler, {name}, cannot be made from its scheduler_config.json"):
        scheduler = kind.from_config(config)
    if hasattr(scheduler, "alphas_cumprod") and not (config.get("beta_schedule") or config.get("trained_betas")):
        raise ValueError("its scheduler_config.json names no noise schedule: beta_start, beta_end and beta_schedule")
    return scheduler


def read_tokenizer(folder: Path, kind: type) -> PreTrainedTokenizerBase:
    """The tokenizer; whether its vocabulary is the text encoder's is not known here."""
    for file in folder.iterdir():
        if file.suffix in (".txt", ".model"):
            check_file(file)
        elif file.suffix == ".json":
            unnamed = [token for token in ("bos_token", "eos_token") if read_json(file).get(token, True) is None]
            if unnamed:
                raise ValueError(f"its {_name(file)} names no {unnamed[0]}")
    with explained("its tokenizer cannot be made from its files"):
        return kind.from_pretrained(folder, local_files_only=True)


def read_network(folder: Path, kind: type, dtype: torch.dtype, *, half: bool = False) -> nn.Module:
    """A network of class `kind` from the configuration and the safetensors weights in its folder.

    Half-precision weights are taken where the full ones are not there, or with `half` where there are any. Raises
    `ValueError` for weights that are not all there, not for this network, or not finite.
    """
    stem = "diffusion_pytorch_model" if issubclass(kind, ModelMixin) else "model"
    variant, files = _find_weights(folder, stem, half)
    for file in files:
        _check_weights(file)
    with explained(f"its {folder.name} cannot be read"), quiet():
        network, found = kind.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # told below
            output_loading_info=True,
        )
    _check_network(network, found, folder.name)
    return network


def _check_network(network: nn.Module, found: dict, name: str) -> None:
    """Refuse a network that is not whole, by what its library `found` and by its numbers."""
    if wrong := sorted(found["mismatched_keys"]):
        key, shape, expected = wrong[0]
        raise ValueError(f"its {name}'s {key} has shape {tuple(shape)}, where its config.json says {tuple(expected)}")
    missing = {*found["missing_keys"], *(key for key, weight in network.named_parameters() if weight.is_meta)}
    if missing:
        raise ValueError(f"its {name} lacks weights that its config.json asks for: {_some(missing)}")
    strange = found["unexpected_keys"]
    if not isinstance(network, ModelMixin):  # a text encoder may lie in a file with other networks
        own = {child for child, _ in network.named_children()}
        strange = [key for key in strange if key.removeprefix("text_model.").split(".")[0] in own]
    if strange:
        raise ValueError(f"its {name} holds weights that its config.json has no place for: {_some(strange)}")
    for key, weight in network.named_parameters():
        if not torch.stack(weight.detach().aminmax()).isfinite().all():  # in a tenth of isfinite's time
            precision = str(weight.dtype).removeprefix("torch.")
            raise ValueError(f"its {name}'s {key} is not finite in {precision}: it is damaged, or needs float32")


def _some(keys: Iterable[str]) -> str:
    first = sorted(keys)
    return ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")


def _name(path: Path) -> str:
    return path.name if path.name == "model_index.json" else f"{path.parent.name}/{path.name}"


def _find_weights(folder: Path, stem: str, half: bool) -> tuple[str | None, list[Path]]:
    """The first variant whose files are all there, None for the full weights, and those files."""
    names = re.compile(rf"{stem}(?:\.(?P<a>[^.]+))?\.safetensors|{stem}\.safetensors\.index(?:\.(?P<b>[^.]+))?\.json")
    variants: dict[str | None, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if (found := names.fullmatch(path.name)) and "-of-" not in path.name:  # shards are found by their index
            variants.setdefault(found["a"] or found["b"], []).append(path)
    order = [*HALF, None] if half else [None, *HALF]
    faults = []
    for variant in sorted(variants, key=lambda v: (order.index(v) if v in order else len(order), v or "")):
        path = variants[variant][0 if stem == "model" else -1]  # of a file and an index, what the library reads
        try:
            return variant, _files_of(path)
        except ValueError as error:
            faults.append(error)
    if faults:
        raise faults[0]
    name, files = folder.name, {path.suffix for path in folder.iterdir()}
    if any(folder.glob(f"{stem}*-of-*.safetensors")):
        raise ValueError(f"its {name} lacks {stem}.safetensors.index.json, which says what its shards hold")
    if files & {".bin", ".ckpt", ".pt", ".pth"}:
        raise ValueError(f"its weights are not there as safetensors, and pickled weights are not loaded ({name})")
    raise ValueError(f"its {name} has no weights: {stem}.safetensors is missing")


def _files_of(path: Path) -> list[Path]:
    """The weights in a file, or in the shards that an index names."""
    if path.suffix != ".json":
        return [check_file(path)]
    shards = read_json(path).get("weight_map")
    plain = isinstance(shards, dict) and all(isinstance(s, str) and s == Path(s).name for s in shards.values())
    if not plain or not shards:
        raise ValueError(f"its {_name(path)} does not say in which shards beside it the weights are")
    files = [path.parent / shard for shard in sorted(set(shards.values()))]
    if missing := [file.name for file in files if not file.exists()]:
        raise ValueError(f"its {path.parent.name} lacks the shard {missing[0]}, which its {path.name} names")
    return [check_file(file) for file in files]


def _check_weights(file: Path) -> None:
    """Refuse a damaged safetensors file, or one of whole numbers (quantised), by its header."""
    with explained(f"its weights are damaged: {_name(file)}"), safe_open(file, framework="pt") as weights:
        kinds = {key: weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118 (not a dict)
    for key, kind in kinds.items():
        if kind not in FLOATS and not key.endswith("position_ids"):
            raise ValueError(f"its {_name(file)} is quantised, as {key} is {kind}: EmerDiff needs floating point")
