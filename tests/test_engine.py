"""What makes runs cheaper: shared attention, and presets with what they are made of."""

from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import quick, small_parts, value_of
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import Attention

import emerdiff
from emerdiff import EmerDiffPipeline, attention, autoencoder
from emerdiff.attention import SharedAttention, shared_attention
from emerdiff.batches import Results, in_batches
from emerdiff.hooks import edit, reach
from emerdiff.inversion import invert, sampling_steps, thinned
from emerdiff.loading import fast_dtype
from emerdiff.matching import agreement
from emerdiff.pipeline import _noise_like
from emerdiff.recut import cuts, recut
from emerdiff.settings import PRESETS
from emerdiff.studies.sweep import VARIANTS

# --- Sharing attention


@pytest.mark.parametrize("map_size", [1, 100, 2**25])
def test_one_map_for_all_rows_is_the_attention_of_each_row(monkeypatch, map_size):
    monkeypatch.setattr(attention, "MAP_SIZE", map_size)  # pieces of one query, of some, of all
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(rows, 3, 17, 8, generator=generator) for rows in (1, 1, 5))
    own = F.scaled_dot_product_attention(queries.expand_as(values), keys.expand_as(values), values, scale=0.4)
    torch.testing.assert_close(shared_attention(queries, keys, values, 0.4), own.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("dtype, rounding", [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize("kind", ["far apart", "close together"])
def test_attention_in_half_precision_has_logits_that_half_precision_has_not(kind, shared, dtype, rounding):
    """Logits over 65,504 and thousands apart, or all near 65,536 and a few units apart."""
    rows, heads, tokens, side = 3, 2, 33, 16
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(n, heads, tokens, side, generator=generator) for n in (1, 1, rows))
    if kind == "far apart":
        queries, keys = 300 * queries, 300 * keys
    else:
        queries[..., 0] = keys[..., 0] = 512
    queries, keys, values = (x.to(dtype) for x in (queries, keys, values))
    logits = queries.double() @ keys.double().transpose(-1, -2) / side**0.5
    assert logits.max() > 65504
    truth = (logits.softmax(-1) @ values.double()).transpose(1, 2).flatten(2)

    def flat(x):
        return x.transpose(1, 2).flatten(2)  # as a projection gives it

    layer = Attention(heads * side, heads=heads, dim_head=side, upcast_attention=True).to(dtype)
    layer.to_out[0] = torch.nn.Identity()
    if shared:
        layer.set_processor(SharedAttention(flat(queries), flat(keys)))
    given = {"to_q": flat(queries).expand(rows, -1, -1), "to_k": flat(keys).expand(rows, -1, -1), "to_v": flat(values)}
    with torch.inference_mode(), edit(layer, {name: lambda _, x=x: x for name, x in given.items()}):
        output = layer(torch.zeros(rows, tokens, heads * side, dtype=dtype))
    assert output.dtype == dtype
    # rounded: the weights, the sum; and float32's own step at 2^18, before scaling, is 2^-5
    bound = 2 * rounding * values.abs().max() + (2**-6 if kind == "close together" else 0)
    assert (output.double() - truth).abs().max() < bound


@pytest.mark.parametrize("shape", ["wide", "square"])
@pytest.mark.parametrize("name", ["small", "small_v2", "miniature"])
def test_sharing_attention_changes_nothing(request, picture, name, shape):
    shared = request.getfixturevalue(name)
    plain = EmerDiffPipeline(**shared.components)
    plain.share_attention = False
    seen = picture if shape == "wide" else picture.crop((0, 0, 128, 128))
    results = [pipe(seen, quick(num_segments=3)) for pipe in (shared, plain)]
    np.testing.assert_array_equal(results[0].coarse_labels, results[1].coarse_labels)
    np.testing.assert_allclose(results[0].differences, results[1].differences, rtol=1e-3, atol=1e-3)
    assert (results[0].labels == results[1].labels).mean() > 0.999
    assert results[0].differences.max() > 0.1


def test_shared_layers_do_not_compute_what_they_share(small, picture):
    """In the replay no query or key is projected, and no text is attended to."""
    called = []
    cross = [f"{name}.to_out.0" for name in small.layers.cross_attention]
    unneeded = [f"{name}.{part}" for name in small.layers.self_attention for part in ("to_q", "to_k")] + cross
    run = small.stream(picture, quick())
    while next(run).stage != "perturbing segments":
        pass
    handles = [small.unet.get_submodule(n).register_forward_hook(lambda *_: called.append(1)) for n in unneeded]
    try:
        for _ in run:
            pass
    finally:
        for handle in handles:
            handle.remove()
    assert called == []


def test_features_are_computed_no_further_than_their_layer(small):
    ran = []
    handles = [
        small.unet.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in ("mid_block", "up_blocks.1", "conv_out")
    ]
    layer = f"{small.layers.block[0]}.to_q"
    try:
        with torch.inference_mode(), reach(small.unet, layer) as outputs:
            small.unet(torch.zeros(2, 4, 16, 16), 1, encoder_hidden_states=torch.zeros(2, 77, 32))
            ran.append("the statement after the call")
    finally:
        for handle in handles:
            handle.remove()
    assert ran == ["mid_block"]
    assert outputs[0].shape == (2, 64, 32)


def test_draws_of_features_do_not_depend_on_the_batch(small, picture):
    settings = quick(feature_draws=5, feature_timestep=50)
    first, *others = (value_of(small.read(picture, settings, rows_per_batch=rows)).features for rows in (1, 2, 8))
    for features in others:
        np.testing.assert_allclose(features, first, rtol=1e-4, atol=1e-5)


def test_attention_outside_transformers_is_refused():
    blocks = {"down_block_types": ("AttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D")}
    with pytest.raises(ValueError, match="attention only in transformers; this U-Net also has it in down_blocks.0"):
        EmerDiffPipeline(**small_parts(**blocks))


# --- Batches


def test_batches_that_do_not_fit_are_halved_and_nothing_is_lost_or_done_twice():
    done, tried = [], []

    def run(items):
        tried.append(len(items))
        yield len(items)
        if len(items) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        done.extend(items.tolist())
        return [2 * item for item in items.tolist()]

    rows = list(results := Results(in_batches(torch.arange(10), 8, run)))
    assert results.value == [2 * i for i in range(10)] and done == list(range(10))
    assert tried == [8, 4, 2, 2, 2, 2, 2] and sum(rows) == 10


# --- Presets and their parts


def grid(**changes):
    scheduler = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return sampling_steps(DDIMScheduler(**scheduler | {"set_alpha_to_one": False} | changes), 50)[-15:]


@pytest.mark.parametrize(
    "count, timesteps",
    [(1, [281]), (2, [281, 1]), (3, [281, 141, 1]), (15, [*range(281, 0, -20)]), (99, [*range(281, 0, -20)])],
)
def test_thinned_steps_end_where_the_next_begin(count, timesteps):
    steps = grid()
    kept = thinned(steps, count)
    assert [step.t for step in kept] == timesteps
    assert [step.alpha_bar for step in kept] == [s.alpha_bar for s in steps if s.t in timesteps]
    assert [step.alpha_bar_prev for step in kept[:-1]] == [step.alpha_bar for step in kept[1:]]
    assert kept[-1].alpha_bar_prev == steps[-1].alpha_bar_prev
    assert all(step.var >= 0 for step in kept)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_steps_are_run_and_without_strength_nothing_differs(small, picture, count):
    events = []
    result = small(picture, quick(replay_steps=count, strength=0), progress=events.append)
    assert events[-1].done == events[-1].total == (count + 2 * 4 * count) + (count == 1)  # t = 1 is free if it is run
    assert result.differences.max() < 1e-4 and result.settings.replay_steps == count
    assert small(picture, quick(replay_steps=count)).differences.max() > 0.1


def test_all_steps_of_the_grid_are_what_none_means(small, picture):
    all_of_four, more = (small(picture, quick(replay_steps=count)) for count in (4, 50))
    np.testing.assert_array_equal(all_of_four.differences, small(picture, quick()).differences)
    np.testing.assert_array_equal(more.differences, all_of_four.differences)
    assert more.settings.replay_steps == 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_inversion_along_fewer_steps_is_the_one_that_these_steps_and_their_noise_give(small, picture, count):
    reading = value_of(small.read(picture, quick()))
    fewer = reading.changed(replay_steps=count)
    kept = [i for i, inverted in enumerate(reading.inversion.steps) if inverted.step.t in [s.t for s in fewer.steps]]
    draw = _noise_like(reading.x_0, 42)
    noise = [draw() for _ in reading.steps][::-1]
    of_kept = iter([noise[i] for i in kept[::-1]])
    names = tuple(reading.inversion.steps[0].recorded)
    expected = value_of(
        invert(
            small.unet,
            reading.x_0,
            reading.prompt,
            fewer.steps,
            noise=lambda: next(of_kept),
            recorded=names,
            feature=small._feature(reading.settings),
            rows=4,
        )
    )
    assert fewer.steps == thinned(reading.steps, count) and fewer.settings.replay_steps == count
    for ours, theirs in zip(fewer.inversion.steps, expected.steps, strict=True):
        assert ours.step == theirs.step
        for part in ("x_t", "prediction", "residual"):
            torch.testing.assert_close(getattr(ours, part), getattr(theirs, part), rtol=0, atol=2e-5)


def test_a_rough_pass_over_a_reading_needs_only_its_own_rows_and_leaves_the_reading_as_it_was(small, picture):
    reading = value_of(small.read(picture, quick()))
    whole = value_of(small.segment(reading))
    rough = reading.changed(num_segments=2, two_sided=False, replay_steps=2)
    coarse = recut(whole, 2).coarse_labels
    events = list(results := Results(small.segment(rough, coarse_labels=coarse)))
    assert events[-1].done == events[-1].total == 2 * 2
    assert np.array_equal(results.value.coarse_labels, coarse) and (results.value.labels != 0).any()
    again = value_of(small.segment(reading))
    np.testing.assert_array_equal(again.responses, whole.responses)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"seed": 1}, "read again for another seed"),
        ({"image_area": 80 * 80}, "read again for another image_area"),
        ({"modulation_timestep": 201}, "read again for another modulation_timestep"),
        ({"replay_steps": 5}, "at most 4"),
    ],
)
def test_a_reading_is_not_used_for_what_it_does_not_hold(small, picture, changes, said):
    reading = value_of(small.read(picture, quick()))
    with pytest.raises(ValueError, match=said):
        reading.changed(**changes)


@pytest.mark.parametrize(
    "changes, rows",
    [
        ({}, (0, 2 * 4 * 4)),
        ({"strength": 3.0, "num_segments": 3}, (0, 2 * 3 * 4)),
        ({"modulation_timestep": 201}, (3, 2 * 4 * 3)),
        ({"feature_timestep": 50}, (2, 2 * 4 * 4)),
        ({"seed": 7}, (4 + 1, 2 * 4 * 4)),
        ({"image_area": 96 * 96}, (4 + 1, 2 * 4 * 4)),
    ],
)
def test_the_rows_of_a_run_are_known_before_it_and_count_no_more_than_it_computes(small, picture, changes, rows):
    settings = quick(feature_draws=2)
    first, changed = value_of(small.read(picture, settings)), replace(settings, **changes)
    assert small.rows(settings) == (4 + 1, 2 * 4 * 4)
    assert small.rows(changed, previous=first) == rows
    events = list(results := Results(small.read(picture, changed, previous=first)))
    assert [(e.done, e.total) for e in events[-1:]] == [(rows[0], rows[0])] * (rows[0] > 0)
    *_, last = small.segment(results.value)
    assert last.done == last.total == rows[1]


def test_one_side_is_half_of_both_where_the_offset_is_small(small, picture):
    two, one = (
        small(picture, quick(strength=0.01, two_sided=sides)).responses.astype(float) for sides in (True, False)
    )
    assert np.abs(two - 2 * one).mean() < 0.05 * np.abs(two).mean()
    rows = []
    small(picture, quick(two_sided=False), progress=rows.append)
    assert rows[-1].done == rows[-1].total == 4 + 4 * 4


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_start_from_the_models_own_settings_and_can_be_changed(miniature, preset):
    settings = miniature.settings(preset=preset, num_segments=7)
    own = miniature.config.defaults | PRESETS[preset] | {"num_segments": 7}
    assert {name: getattr(settings, name) for name in own} == own


def test_presets_are_among_the_variants_that_are_swept():
    assert all(changes in VARIANTS.values() for changes in PRESETS.values())


def test_an_unknown_preset_is_refused(small):
    with pytest.raises(ValueError, match="preset must be one of exact, fast, preview, not 'quick'"):
        small.settings(preset="quick")


@pytest.fixture(scope="module")
def whole(miniature, picture):
    return miniature(picture, miniature.settings(num_segments=6, image_area=128 * 128, replay_steps=3))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "plain"])
@pytest.mark.parametrize("dtype, off", [(torch.bfloat16, 0.01), (torch.float16, 0.001)])  # the miniature's is float16
def test_half_precision_gives_nearly_the_same_features_and_labels(whole, picture, dtype, off, shared):
    pipe = emerdiff.load("miniature", device="cpu", dtype=dtype)
    pipe.share_attention = shared
    assert (pipe.unet.dtype, pipe.vae.dtype) == (dtype, torch.float32)
    half = pipe(picture, whole.settings, coarse_labels=whole.coarse_labels)
    assert np.linalg.norm(half.features - whole.features) < off * np.linalg.norm(whole.features)
    equal = half.labels == whole.labels
    assert equal.mean() > 0.99 and equal[whole.confidence > 0.3].mean() > 0.999


def test_the_autoencoder_is_not_rounded_to_tf32(small, picture):
    cudnn, allowed = torch.backends.cudnn, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cudnn, "deterministic", True)  # what a user may have asked for stays
        with ExitStack() as stack:
            for network in (small.vae.encoder, small.vae.decoder):
                hook = network.register_forward_hook(lambda *_: allowed.append((cudnn.allow_tf32, cudnn.deterministic)))
                stack.callback(hook.remove)
            small(picture, quick(num_segments=2, replay_steps=1))
        assert (cudnn.allow_tf32, cudnn.deterministic) == (True, True)
    assert len(allowed) > 2 and set(allowed) == {(False, True)}


@pytest.mark.parametrize("two_sided", [True, False])
def test_magnified_decoding_keeps_changes_that_half_precision_would_drown(miniature, picture, two_sided):
    half = emerdiff.load("miniature", device="cpu", dtype=torch.bfloat16)
    settings = {"num_segments": 6, "image_area": 128 * 128, "replay_steps": 4, "strength": 1}
    settings = half.settings(two_sided=two_sided, **settings)
    reading = value_of(half.read(picture, settings))
    whole = value_of(half.segment(reading)).responses.astype(float)

    def error(magnified: bool) -> float:
        changed = replace(reading, settings=replace(settings, magnified_decoding=True))
        with pytest.MonkeyPatch.context() as patch:
            if not magnified:
                patch.setattr(autoencoder, "magnification", lambda changes: torch.ones(len(changes), 1, 1, 1))
            responses = value_of(half.segment(changed)).responses.astype(float)
        return np.linalg.norm(responses - whole) / np.linalg.norm(whole)

    assert 0 < error(magnified=True) < 0.4 * error(magnified=False)


def test_in_float32_nothing_is_magnified(small, picture):
    plain, magnified = (small(picture, quick(magnified_decoding=on)) for on in (False, True))
    np.testing.assert_array_equal(plain.responses, magnified.responses)


def test_without_strength_nothing_differs_however_it_is_decoded(picture):
    half = emerdiff.load("miniature", device="cpu", dtype=torch.bfloat16)
    settings = {"num_segments": 3, "image_area": 64 * 64, "kmeans_n_init": 1}
    still, pushed = (half(picture, half.settings(preset="preview", strength=s, **settings)) for s in (0, 10))
    assert np.isfinite(still.responses).all()
    assert still.differences.max() < 0.1 * pushed.differences.max()  # rounding in the U-Net


def test_the_precision_suits_the_device():
    assert fast_dtype(torch.device("cuda")) == torch.float16
    assert fast_dtype(torch.device("mps")) == torch.float32
    assert emerdiff.load().unet.dtype == fast_dtype(emerdiff.load().unet.device)


# --- Re-cutting


@pytest.fixture(scope="module")
def fine(small, picture):
    return small(picture, quick(num_segments=8))


@pytest.mark.parametrize("k", [2, 5, 8])
def test_a_recut_has_the_number_asked_for_and_each_fine_segment_in_one_of_them(fine, k):
    coarser = emerdiff.recut(fine, k)
    pairs = set(zip(fine.coarse_labels.ravel().tolist(), coarser.coarse_labels.ravel().tolist(), strict=True))
    assert len(pairs) == 8 and {group for _, group in pairs} == set(range(k))
    assert coarser.settings.num_segments == k and coarser.differences.shape == (k, *fine.labels.shape)
    assert coarser.confidence.min() >= 0 and coarser.naive_labels.max() < k
    assert ("Cut from 8 segments" in " ".join(coarser.notes)) == (k < 8)


def test_cuts_are_nested_and_numbers_stay(fine):
    groups, cells = cuts(fine), np.bincount(fine.coarse_labels.ravel())
    assert groups.shape == (9, 8) and (groups[1] == 0).all() and sorted(groups[8]) == list(range(8))
    for n in range(2, 9):
        changed = groups[n] != groups[n - 1]
        assert (groups[n][changed] == n - 1).all() and len({*groups[n - 1][changed]}) == 1  # one part splits off
        rest = ~changed & (groups[n] == groups[n - 1][changed][0])
        assert cells[changed].sum() <= cells[rest].sum()
    np.testing.assert_array_equal(emerdiff.recut(fine, 5).coarse_labels, groups[5][fine.coarse_labels])


def test_a_recut_to_as_many_segments_is_the_segmentation_itself(fine):
    same = emerdiff.recut(fine, 8)
    assert agreement(same.labels, fine.labels) > 0.995  # responses are kept in half precision
    np.testing.assert_allclose(np.sort(same.differences, 0), np.sort(fine.differences, 0), rtol=0.01, atol=0.01)


def test_segments_with_near_features_merge_first(fine):
    """Ward: of all pairs, the one whose union raises the cells' squared distances to their means least."""
    cells = fine.coarse_labels.ravel()
    features = fine.features.reshape(len(cells), -1).astype(float)
    means, counts = np.stack([features[cells == i].mean(0) for i in range(8)]), np.bincount(cells)
    cost = {
        (i, j): counts[i] * counts[j] / (counts[i] + counts[j]) * ((means[i] - means[j]) ** 2).sum()
        for i in range(8)
        for j in range(i)
    }
    i, j = min(cost, key=cost.get)
    seven = emerdiff.recut(fine, 7).coarse_labels.ravel()
    assert seven[cells == i][0] == seven[cells == j][0]


def test_the_response_of_a_union_is_the_sum_of_its_parts(fine):
    merged = emerdiff.merge(fine, np.array([5, 5, 0, 1, 1, 1, 2, 7]))
    assert merged.settings.num_segments == 5
    total = fine.responses[3:6].astype(np.float32).sum(0)
    np.testing.assert_allclose(merged.differences[1], np.linalg.norm(total, axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(merged.coarse_labels == 3, fine.coarse_labels < 2)  # numbered in the groups' order
    np.testing.assert_array_equal(merged.labels, merged.differences.argmax(0))


def test_linear_response_holds_to_first_order(small, picture):
    """Where the offset is small, segments merged afterwards are what the network gives for their unions."""
    parts, groups = np.arange(128).reshape(8, 16) % 6, np.array([0, 0, 0, 1, 1, 1])
    settings = [quick(num_segments=k, strength=0.05) for k in (6, 2)]
    merged = emerdiff.merge(small(picture, settings[0], coarse_labels=parts), groups)
    own = small(picture, settings[1], coarse_labels=groups[parts])
    np.testing.assert_array_equal(own.coarse_labels, merged.coarse_labels)
    difference = np.abs(merged.responses.astype(float) - own.responses.astype(float))
    assert difference.mean() < 0.05 * np.abs(own.responses.astype(float)).mean()


BAD_COARSE = [np.zeros((16, 8), int), np.full((8, 16), 4), np.full((8, 16), -1), np.zeros((8, 16)), np.zeros(128, int)]


@pytest.mark.parametrize("labels", BAD_COARSE, ids=["turned", "too high", "negative", "fractions", "flat"])
def test_coarse_labels_that_do_not_fit_are_refused(small, picture, labels):
    with pytest.raises(ValueError, match=r"from 0 to 3 .* low-resolution grid, 8 rows of 16"):
        small(picture, quick(), coarse_labels=labels)


def test_a_runs_own_coarse_labels_give_the_run_again_whatever_their_type(small, picture):
    result = small(picture, quick(num_segments=2))
    for dtype in (np.int32, np.int8, np.uint16):
        again = small(picture, quick(num_segments=2), coarse_labels=result.coarse_labels.astype(dtype))
        assert again.coarse_labels.dtype == np.int32
        np.testing.assert_array_equal(again.differences, result.differences)


@pytest.mark.parametrize("k", [1, 0, 9])
def test_a_recut_to_another_number_is_refused(fine, k):
    with pytest.raises(ValueError, match=f"from 2 to 8, the number of segments there are, not {k}"):
        emerdiff.recut(fine, k)


def test_groups_must_be_given_for_each_segment(fine):
    with pytest.raises(ValueError, match="a number for each of 8 segments, not 3"):
        emerdiff.merge(fine, np.array([0, 1, 1]))
