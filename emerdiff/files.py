"""Finds, checks and reads the files in a checkpoint's folder; each fault is an error in one sentence."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import diffusers
import torch
from diffusers import ModelMixin, SchedulerMixin
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedTokenizerBase

from .checking import check_switches
from .errors import in_a_line
from .formats import GIT_LFS_POINTER
from .quiet import quiet

LARGEST_JSON = 64 * 2**20  # bytes; tokenizers have some 4 MB
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}  # safetensors' names
MOST_TIMESTEPS = 100_000  # of a noise schedule; more are a mistake that would exhaust the memory
HALF = "fp16", "bf16"  # the variants to prefer if there are no full weights


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns whatever the libraries raise within the block, which may be anything, into `ValueError`."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what} ({in_a_line(error)})") from error


def check_file(path: Path) -> Path:
    """Returns `path` if it is a file that can be read, is not empty and is not a Git LFS pointer."""
    name = _name(path)
    if not path.exists():
        raise ValueError(f"its file {name} is missing")
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
        raise ValueError(f"its {_name(path)} has {path.stat().st_size >> 20} MiB, far more than such a file can need")
    with explained(f"its {_name(path)} is not a valid JSON file"):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"its {_name(path)} does not contain a JSON object")
    return content


def read_scheduler(folder: Path, kind: type) -> SchedulerMixin:
    """The scheduler, of the class that its own file names, as another class would silently ignore its values."""
    config = read_json(folder / "scheduler_config.json")
    name, steps = config.get("_class_name", kind.__name__), config.get("num_train_timesteps", 1000)
    kind = getattr(diffusers, str(name), None)
    if lacking := [package for package in getattr(kind, "_backends", ()) if not find_spec(package)]:
        raise ValueError(f"its scheduler, {name}, needs {' and '.join(lacking)}: install it, or choose another class")
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
        raise ValueError(f"its scheduler is a {name}, which diffusers {diffusers.__version__} does not have")
    if type(steps) is not int or not 1 <= steps <= MOST_TIMESTEPS:
        raise ValueError(f"its num_train_timesteps must be a whole number from 1 to {MOST_TIMESTEPS}, not {steps!r}")
    check_switches(config, kind, "its scheduler's")
    with explained(f"its scheduler, {name}, cannot be made from its scheduler_config.json"):
        scheduler = kind.from_config(config)
    if hasattr(scheduler, "alphas_cumprod") and not (config.get("beta_schedule") or config.get("trained_betas")):
        raise ValueError("its scheduler_config.json lacks a noise schedule: beta_start, beta_end and beta_schedule")
    return scheduler


def read_tokenizer(folder: Path, kind: type) -> PreTrainedTokenizerBase:
    """The tokenizer, whose vocabulary is not compared with the text encoder here."""
    for file in folder.iterdir():
        if file.suffix in (".txt", ".model"):
            check_file(file)
        elif file.suffix == ".json":
            unnamed = [token for token in ("bos_token", "eos_token") if read_json(file).get(token, True) is None]
            if unnamed:
                raise ValueError(f"its {_name(file)} has no {unnamed[0]}")
    with explained("its tokenizer cannot be made from its files"):
        return kind.from_pretrained(folder, local_files_only=True)


def read_network(folder: Path, kind: type, dtype: torch.dtype, *, half: bool = False) -> nn.Module:
    """A network of class `kind` from the configuration and the safetensors weights in its folder.

    Half-precision weights are read if the full ones are missing, or with `half` whenever there are any. Raises
    `ValueError` if weights are missing, belong to another network or are not finite.
    """
    variant = check_weights(folder, kind, half=half)
    with explained(f"its {folder.name} cannot be read"), quiet():
        network, found = kind.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # reported below
            output_loading_info=True,
        )
    check_network(network, found, folder.name)
    return network


def check_weights(folder: Path, kind: type, *, half: bool = False) -> str | None:
    """The variant that `read_network` reads, None standing for the full weights, once its files have been checked."""
    stem = "diffusion_pytorch_model" if issubclass(kind, ModelMixin) else "model"
    variant, files = _find_weights(folder, stem, half)
    for file in files:
        _check_weights(file)
    return variant


def check_network(network: nn.Module, found: Mapping, name: str) -> None:
    """Refuses a network whose weights are incomplete, superfluous, misshapen or not finite."""
    if wrong := sorted(found["mismatched_keys"]):
        key, shape, expected = wrong[0]
        raise ValueError(f"its {name}'s {key} has shape {tuple(shape)}, but its config.json says {tuple(expected)}")
    missing = {*found["missing_keys"], *(key for key, weight in network.named_parameters() if weight.is_meta)}
    if missing:
        raise ValueError(f"its {name} lacks weights that its config.json requires: {_some(missing)}")
    strange = found["unexpected_keys"]
    if not isinstance(network, ModelMixin):  # a text encoder may share its file with other networks
        own = {child for child, _ in network.named_children()}
        strange = [key for key in strange if key.removeprefix("text_model.").split(".")[0] in own]
    if strange:
        raise ValueError(f"its {name} has weights for which its config.json has no place: {_some(strange)}")
    for key, weight in network.named_parameters():
        if not torch.stack(weight.detach().aminmax()).isfinite().all():  # in a tenth of isfinite's time
            precision = str(weight.dtype).removeprefix("torch.")
            raise ValueError(f"its {name}'s {key} is not finite in {precision}: it is damaged, or it needs float32")


def _some(keys: Iterable[str]) -> str:
    first = sorted(keys)
    return ", ".join(first[:3]) + (f" and {len(first) - 3} more" if len(first) > 3 else "")


def _name(path: Path) -> str:
    return path.name if path.name == "model_index.json" else f"{path.parent.name}/{path.name}"


def _find_weights(folder: Path, stem: str, half: bool) -> tuple[str | None, list[Path]]:
    """The first variant whose files are complete, None standing for the full weights, and its files."""
    names = re.compile(rf"{stem}(?:\.(?P<a>[^.]+))?\.safetensors|{stem}\.safetensors\.index(?:\.(?P<b>[^.]+))?\.json")
    variants: dict[str | None, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if (found := names.fullmatch(path.name)) and "-of-" not in path.name:  # shards are found through their index
            variants.setdefault(found["a"] or found["b"], []).append(path)
    order = [*HALF, None] if half else [None, *HALF]
    faults = []
    for variant in sorted(variants, key=lambda v: (order.index(v) if v in order else len(order), v or "")):
        path = variants[variant][0 if stem == "model" else -1]  # of a file and an index, the one that the library reads
        try:
            return variant, _files_of(path)
        except ValueError as error:
            faults.append(error)
    if faults:
        raise faults[0]
    name, files = folder.name, {path.suffix for path in folder.iterdir()}
    if any(folder.glob(f"{stem}*-of-*.safetensors")):
        raise ValueError(f"its {name} lacks {stem}.safetensors.index.json, which says what is in its shards")
    if files & {".bin", ".ckpt", ".pt", ".pth"}:
        raise ValueError(f"its {name} has no weights in safetensors format, and pickled weights are not loaded")
    raise ValueError(f"its {name} has no weights: {stem}.safetensors is missing")


def _files_of(path: Path) -> list[Path]:
    """The file itself, or the shards that an index names."""
    if path.suffix != ".json":
        return [check_file(path)]
    shards = read_json(path).get("weight_map")
    plain = isinstance(shards, dict) and all(isinstance(s, str) and s == Path(s).name for s in shards.values())
    if not plain or not shards:
        raise ValueError(f"its {_name(path)} does not say which shards beside it contain the weights")
    files = [path.parent / shard for shard in sorted(set(shards.values()))]
    if missing := [file.name for file in files if not file.exists()]:
        raise ValueError(f"its {path.parent.name} lacks the shard {missing[0]}, which its {path.name} names")
    return [check_file(file) for file in files]


def _check_weights(file: Path) -> None:
    """Refuses a safetensors file whose header shows damage or whole numbers, as in quantised weights."""
    with explained(f"its weights are damaged: {_name(file)}"), safe_open(file, framework="pt") as weights:
        kinds = {key: weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118 (not a dict)
    for key, kind in kinds.items():
        if kind not in FLOATS and not key.endswith("position_ids"):
            raise ValueError(f"its {_name(file)} is quantised ({key} is {kind}); EmerDiff needs floating-point weights")
