"""Checkpoints of other families: they load, and give the published procedure's segments; others are refused by kind."""

import numpy as np
import pytest
import torch
from conftest import quick
from families import ORACLES, library_pipeline

import emerdiff
from emerdiff.inversion import sampling_steps, step_at
from emerdiff.studies.published import Published

SIZES = {"wide": (128, 64), "square": (64, 64)}
LIKE_QUICK = {"num_segments": 3, "n_init": 1, "steps": 10, "t_m": 301}  # `quick()` in the oracle's words


@pytest.fixture(scope="module", params=ORACLES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def library(family):
    """The library's own pipeline."""
    return library_pipeline(family)


@pytest.fixture(scope="module")
def pipe(library, tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    library.save_pretrained(folder)
    return emerdiff.load(folder, device="cpu", dtype=torch.float32)


def test_segments_are_those_of_the_published_procedure(family, pipe, picture):
    oracle = ORACLES[family].copy()
    block, own = oracle.pop("block"), {}
    for name in ("feature", "modulation"):
        transformer, depth = oracle.pop(name)
        own[f"{name}_layer"] = f"up_blocks.{block}.attentions.{transformer}.transformer_blocks.{depth}.attn2"
    for shape, size in SIZES.items():
        seen = picture if shape == "wide" else picture.crop((0, 0, 128, 128))
        ours = pipe(seen, quick(num_segments=3))
        published = Published(pipe, seen, size, **LIKE_QUICK | own | oracle)
        published.run()
        assert ours.settings.modulation_timestep == published.t_m
        np.testing.assert_array_equal(ours.coarse_labels.ravel(), published.coarse)
        np.testing.assert_allclose(ours.differences, published.differences, rtol=2e-3, atol=2e-3)
        assert (ours.labels == published.labels).mean() >= 0.995
        assert ours.differences.max() > 0.01 and ours.changed > 0.05
        print(family, shape, (ours.labels == published.labels).mean(), ours.coarse_labels.shape, ours.changed)
