"""The files of a checkpoint's folder: found, looked at, and read, each fault told in a sentence."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ModelMixin
from safetensors import safe_open
from torch import nn

POINTER = b"version https://git-lfs"  # how the text begins that stands for a file in a clone without Git LFS
LARGEST_JSON = 64 * 2**20  # bytes; tokenizers have some 4 MB
FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}  # safetensors' names
HALF = "fp16", "bf16"  # variants that are taken first where the full weights are not there


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Whatever the libraries raise over files that people bring, and that can be anything, as `ValueError`."""
    try:
        yield
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{what} ({kind}{lines[0].rstrip('.')})") from error


def check_file(path: Path) -> Path:
    """`path` itself, where it is a file that can be read and holds what it should, not a Git LFS pointer."""
    name = _name(path)
    if not path.exists():
        raise ValueError(f"it lacks the file {name}")
    if not path.is_file():
        raise ValueError(f"its {name} is not a file")
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise ValueError(f"its {name} cannot be read: {error.strerror}") from error
    if start == POINTER:
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


def read_network(folder: Path, kind: type, dtype: torch.dtype, *, half: bool = False) -> nn.Module:
    """A network of class `kind` from the configuration and the safetensors weights in its folder.

    Half-precision weights are taken where the full ones are not there, or with `half` where there are any. Raises
    `ValueError` for weights that are not all there, not for this network, or not finite.
    """
    name = folder.name
    diffusers = issubclass(kind, ModelMixin)
    stem = "diffusion_pytorch_model" if diffusers else "model"
    variant, files = _find_weights(folder, stem, half)
    for file in files:
        _check_weights(file)
    with explained(f"its {name} cannot be read"):
        network, found = kind.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # told below
            output_loading_info=True,
        )
    if wrong := sorted(found["mismatched_keys"]):
        key, shape, expected = wrong[0]
        raise ValueError(f"its {name}'s {key} has shape {tuple(shape)}, where its config.json says {tuple(expected)}")
    missing = sorted({*found["missing_keys"], *(key for key, p in network.named_parameters() if p.is_meta)})
    if missing:
        count = sum(1 for _ in network.parameters())
        raise ValueError(f"its {name} lacks {len(missing)} of {count} weights: {', '.join(missing[:3])}")
    own = {child for child, _ in network.named_children()}
    strange = [  # a text encoder may share its file with other networks
        key
        for key in sorted(found["unexpected_keys"])
        if diffusers or key.removeprefix("text_model.").split(".")[0] in own
    ]
    if strange:
        raise ValueError(
            f"its {name} holds {len(strange)} weights that are none of the network in its config.json: "
            f"{', '.join(strange[:3])}"
        )
    for key, weight in network.named_parameters():
        if not torch.stack(weight.detach().aminmax()).isfinite().all():  # a tenth of isfinite's time
            raise ValueError(f"its {name}'s {key} is not finite in {str(dtype).removeprefix('torch.')}")
    return network


def _name(path: Path) -> str:
    return path.name if path.name == "model_index.json" else f"{path.parent.name}/{path.name}"


def _find_weights(folder: Path, stem: str, half: bool) -> tuple[str | None, list[Path]]:
    """The first variant whose files are all there, None for the full weights, and those files."""
    names = re.compile(rf"{stem}(?:\.(?P<a>\w+))?\.safetensors|{stem}\.safetensors\.index(?:\.(?P<b>\w+))?\.json")
    matches = [(found, path) for path in sorted(folder.iterdir()) if (found := names.fullmatch(path.name))]
    variants: dict[str | None, list[Path]] = {}
    for found, path in matches:
        variants.setdefault(found["a"] or found["b"], []).append(path)
    order = [*HALF, None] if half else [None, *HALF]
    faults = []
    for variant in sorted(variants, key=lambda v: (order.index(v) if v in order else len(order), v or "")):
        try:
            return variant, [file for path in variants[variant] for file in _files_of(path)]
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
    if not isinstance(shards, dict) or not shards or not all(isinstance(shard, str) for shard in shards.values()):
        raise ValueError(f"its {_name(path)} does not say in which shards its weights are")
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
