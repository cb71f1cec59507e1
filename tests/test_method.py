import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import quick, small_parts, value_of
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import ImageOps

from emerdiff import EmerDiffPipeline
from emerdiff.attention import recorded_layers
from emerdiff.hooks import layer, record
from emerdiff.inversion import invert, sampling_steps
from emerdiff.layers import find_layers
from emerdiff.masks import response, upsample_naive
from emerdiff.modulation import replay
from emerdiff.recut import merge
from emerdiff.studies.published import Published

SIZE = (128, 64)  # of `picture` (192 x 128) where 64 x 64 pixels are asked for
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LAYER = "up_blocks.1.attentions.{}.transformer_blocks.0.attn2"
LIKE_QUICK = {"num_segments": 4, "n_init": 1, "steps": 10, "t_m": 301}  # `quick()` in the oracle's words


@pytest.fixture(scope="module")
def plain(small, picture):
    return small(picture, quick())


def number_of_hooks(pipe) -> int:
    """Hooks and attention processors that are not the library's."""
    networks = (pipe.unet, pipe.vae, pipe.text_encoder)
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for n in networks for m in n.modules())
    return hooks + sum(not isinstance(p, AttnProcessor2_0) for p in pipe.unet.attn_processors.values())


def elsewhere(function, *args):
    """The function's result in another thread, or an error where that takes unreasonably long."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(function, *args).result(timeout=60)
    finally:
        pool.shutdown(wait=False)


@contextmanager
def hooked(register, hook):
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()


def assert_same(a, b):
    np.testing.assert_array_equal(a.coarse_labels, b.coarse_labels)
    np.testing.assert_array_equal(a.differences, b.differences)
    np.testing.assert_array_equal(a.labels, b.labels)


# --- The published procedure


def assert_published(ours, published):
    published.run()
    np.testing.assert_array_equal(ours.coarse_labels.ravel(), published.coarse)
    np.testing.assert_allclose(ours.differences, published.differences, rtol=1e-3, atol=1e-3)
    assert (ours.labels == published.labels).mean() >= 0.995
    assert ours.changed > 0.1  # else the comparison would say little: labels are not those of the grid
    torch.testing.assert_close(published.replayed, published.x_0, rtol=0, atol=1e-4)


def test_segments_are_those_of_the_published_procedure(small, picture):
    settings = quick(
        num_segments=6,
        num_inference_steps=50,
        modulation_timestep=281,
        feature_timestep=0,
        feature_draws=5,
        kmeans_n_init=5,
    )
    ours = small(picture, settings)
    assert ours.labels.shape == SIZE[::-1] and ours.coarse_labels.shape == (8, 16)
    assert_published(ours, Published(small, picture, SIZE, feature_timestep=0, feature_draws=5, n_init=5))


def test_segments_are_those_of_the_published_procedure_where_the_network_predicts_velocity(small_v2, picture):
    published = Published(small_v2, picture, SIZE, velocity=True, **LIKE_QUICK)
    assert_published(small_v2(picture, quick()), published)


def test_segments_are_those_of_the_published_procedure_without_attention_injection(small, picture):
    ours = small(picture, quick(attention_injection=False))
    assert_published(ours, Published(small, picture, SIZE, attention_injection=False, **LIKE_QUICK))


def test_segments_are_those_of_the_published_procedure_with_another_seed_strength_timesteps_and_layers(small, picture):
    features = {"feature_timestep": 123, "feature_draws": 2}
    settings = quick(seed=7, strength=3, modulation_timestep=501, feature_layer=1, modulation_layer=0, **features)
    layers = {"feature_layer": LAYER.format(1), "modulation_layer": LAYER.format(0)}
    oracle = LIKE_QUICK | {"t_m": 501, "seed": 7, "strength": 3.0} | features | layers
    assert_published(small(picture, settings), Published(small, picture, SIZE, **oracle))


def test_segments_are_those_of_the_published_procedure_where_a_layer_follows_the_third_in_its_block(picture):
    pipe = EmerDiffPipeline(**small_parts(layers_per_block=3))
    assert len(pipe.unet.up_blocks[1].attentions) == 4
    assert pipe.layers.modulation.startswith("up_blocks.1.attentions.2.") and not pipe.layers.differing
    assert_published(pipe(picture, quick()), Published(pipe, picture, SIZE, **LIKE_QUICK))


def test_the_result_has_the_documented_shapes_and_types(plain, picture):
    height, width = SIZE[::-1]
    expected = {
        "image": ((height, width, 3), np.uint8),
        "labels": ((height, width), np.int32),
        "coarse_labels": ((8, 16), np.int32),
        "differences": ((4, height, width), np.float32),
        "naive_labels": ((height, width), np.int32),
        "confidence": ((height, width), np.float32),
        "labels_at_original_size": (picture.size[::-1], np.int32),
    }
    assert {name: (getattr(plain, name).shape, getattr(plain, name).dtype) for name in expected} == expected
    assert set(np.unique(plain.coarse_labels)) == {0, 1, 2, 3}
    assert plain.differences.min() >= 0 and plain.confidence.min() >= 0 and plain.confidence.max() <= 1
    assert plain.original_size == picture.size and plain.settings == quick()


def test_all_else_follows_from_what_the_network_found_and_most_is_computed_once(small, picture):
    result = small(picture, quick())
    follows = ("differences", "labels", "confidence", "naive_labels")
    assert not {*follows} & vars(result).keys()  # takes no memory before it is needed
    sizes = np.linalg.norm(result.responses.astype(np.float32), axis=1)
    np.testing.assert_array_equal(result.differences, sizes)
    np.testing.assert_array_equal(result.labels, sizes.argmax(0))
    second, best = np.sort(sizes, axis=0)[-2:]
    np.testing.assert_allclose(result.confidence, (best - second) / best, atol=1e-6)
    np.testing.assert_array_equal(result.naive_labels, upsample_naive(result.coarse_labels, 4, SIZE[::-1]))
    assert all(getattr(result, name) is getattr(result, name) for name in follows[1:])  # differences take much memory
    turned = replace(result, responses=result.responses[::-1].copy())
    np.testing.assert_array_equal(turned.differences, sizes[::-1])


def test_segments_of_a_sketch_merge_into_one_that_is_known_if_all_are(small, picture):
    run = small.stream(picture, quick(), rows_per_batch=4)
    sketch = next(event.sketch for event in run if event.sketch and event.sketch.known.any())
    assert sketch.known.tolist() == [True, True, False, False]
    merged = merge(sketch, np.array([0, 0, 1, 1]))
    assert merged.known.tolist() == [True, False]
    waiting = merged.naive_labels == 1
    assert (merged.labels[waiting] == 1).all() and not merged.confidence[waiting].any()
    assert merge(sketch, np.array([0, 1, 1, 0])).known.tolist() == [False, False]


# --- Inversion and replay


@pytest.fixture(scope="module")
def latents(small, picture):
    return small._encode(picture.resize(SIZE)), small._encode_prompt(SIZE)


def inverted(pipe, latents, steps, rows=3):
    generator = torch.Generator().manual_seed(1)
    x_0, prompt = latents
    return value_of(
        invert(
            pipe.unet, x_0, prompt, steps, noise=lambda: torch.randn(x_0.shape, generator=generator),
            recorded=recorded_layers(pipe.layers, shared=True), feature=f"{pipe.layers.block[0]}.to_q",
            rows=rows,
        )
    )  # fmt: skip


def replayed(pipe, latents, inversion, offsets, **kwargs):
    return value_of(replay(pipe.unet, inversion, latents[1], offsets, pipe.layers, **kwargs))


@pytest.mark.parametrize("injection", [True, False])
def test_replaying_with_zero_offsets_returns_the_picture(small, latents, injection):
    steps = tuple(step for step in sampling_steps(small.scheduler, 10) if step.t <= 301)
    inversion = inverted(small, latents, steps)
    x_0 = replayed(small, latents, inversion, torch.zeros(2, 128), attention_injection=injection)
    torch.testing.assert_close(x_0, latents[0].expand(2, -1, -1, -1), rtol=0, atol=1e-4)
    x_0 = replayed(small, latents, inversion, torch.full((2, 128), 10.0), attention_injection=injection)
    assert (x_0 - latents[0]).abs().max() > 0.01


def test_steps_inverted_at_once_are_those_inverted_one_by_one(small, latents):
    steps = sampling_steps(small.scheduler, 10)[-4:]
    one_by_one, at_once = (inverted(small, latents, steps, rows) for rows in (1, 4))
    assert [s.step for s in at_once.steps] == [*steps]
    assert torch.equal(one_by_one.steps[0].x_t, at_once.steps[0].x_t)
    torch.testing.assert_close(at_once.queries, one_by_one.queries)
    for own, other in zip(one_by_one.steps, at_once.steps, strict=True):
        torch.testing.assert_close(other.residual, own.residual, rtol=0, atol=1e-5)
        assert own.recorded.keys() == other.recorded.keys() and own.recorded
        for name in own.recorded:
            torch.testing.assert_close(other.recorded[name], own.recorded[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("last_is_clean", [True, False])
def test_replaying_returns_the_picture_where_the_last_step_has_no_variance(small, latents, last_is_clean):
    scheduler = DDIMScheduler(**SCHEDULE, steps_offset=0, set_alpha_to_one=last_is_clean)
    steps = sampling_steps(scheduler, 10)[-4:]
    assert [step.t for step in steps] == [300, 200, 100, 0] and steps[-1].var == 0
    x_0 = replayed(small, latents, inverted(small, latents, steps), torch.zeros(1, 128), attention_injection=False)
    torch.testing.assert_close(x_0, latents[0], rtol=0, atol=1e-4)


def test_replaying_returns_the_picture_from_where_no_signal_is_left(small, latents):
    zero_snr = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    steps = sampling_steps(DDIMScheduler(**SCHEDULE, set_alpha_to_one=False, **zero_snr), 5)
    assert steps[0].t == 999 and steps[0].alpha_bar == 0
    x_0 = replayed(small, latents, inverted(small, latents, steps), torch.zeros(1, 128), attention_injection=False)
    torch.testing.assert_close(x_0, latents[0], rtol=0, atol=1e-4)


def test_the_grid_of_fifty_steps_is_stable_diffusions():
    schedulers = (
        DDIMScheduler(**SCHEDULE, steps_offset=1, set_alpha_to_one=False),
        PNDMScheduler(**SCHEDULE, steps_offset=1, set_alpha_to_one=False, skip_prk_steps=True),
        PNDMScheduler(**SCHEDULE, steps_offset=1),  # whose own default is not DDIM's
        EulerDiscreteScheduler(**SCHEDULE, steps_offset=1, timestep_spacing="leading"),  # knows no last alpha
    )
    for scheduler in schedulers:
        steps = sampling_steps(scheduler, 50)
        assert [step.t for step in steps] == list(range(981, 0, -20))
        alphas = scheduler.alphas_cumprod.tolist()
        assert [step.alpha_bar for step in steps] == [alphas[step.t] for step in steps]
        assert [step.alpha_bar_prev for step in steps] == [*(alphas[step.t] for step in steps[1:]), alphas[0]]


def test_the_last_step_ends_without_noise_where_the_scheduler_says_so():
    assert sampling_steps(DDIMScheduler(**SCHEDULE, set_alpha_to_one=True), 50)[-1].alpha_bar_prev == 1


@pytest.mark.parametrize("steps", [2, 30, 999, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_each_step_ends_where_the_next_begins(steps, spacing):
    offset = int(spacing == "leading")
    scheduler = DDIMScheduler(**SCHEDULE, steps_offset=offset, set_alpha_to_one=False, timestep_spacing=spacing)
    grid = sampling_steps(scheduler, steps)
    assert steps - 1 <= len(grid) <= steps and max(step.t for step in grid) <= 999
    assert [step.alpha_bar for step in grid] == scheduler.alphas_cumprod[[step.t for step in grid]].tolist()
    assert [step.alpha_bar_prev for step in grid[:-1]] == [step.alpha_bar for step in grid[1:]]
    assert all(step.var >= 0 for step in grid)


def test_a_model_that_predicts_the_sample_is_refused():
    with pytest.raises(ValueError, match="'sample' are not supported"):
        sampling_steps(DDIMScheduler(**SCHEDULE, prediction_type="sample"), 50)


def test_more_steps_than_the_model_was_trained_with_are_refused():
    with pytest.raises(ValueError, match="at most 100 .* not 101"):
        sampling_steps(DDIMScheduler(**SCHEDULE, num_train_timesteps=100), 101)


# --- What settings do


def test_without_strength_nothing_differs(small, picture, plain):
    assert plain.differences.max() > 0.1
    assert small(picture, quick(strength=0)).differences.max() < 1e-4


def test_attention_injection_matters(small, picture, plain):
    without = small(picture, quick(attention_injection=False))
    np.testing.assert_array_equal(without.coarse_labels, plain.coarse_labels)
    assert np.abs(without.differences - plain.differences).max() > 0.01


def test_a_run_repeats_bit_for_bit(small, picture, plain):
    assert_same(small(picture, quick()), plain)


def test_another_seed_gives_another_result(small, picture, plain):
    assert np.abs(small(picture, quick(seed=43)).differences - plain.differences).max() > 0.01


def test_a_timestep_off_the_grid_is_replaced_by_the_nearest_and_that_is_said(small, picture, plain):
    result = small(picture, quick(modulation_timestep=281))
    assert_same(result, plain)
    assert result.settings.modulation_timestep == 301 and plain.notes == ()
    assert len(result.notes) == 1 and all(word in result.notes[0] for word in ("281", "10 sampling steps", "301"))


@pytest.mark.parametrize("t", [0, 1, 500, 999])
def test_features_are_read_at_their_timestep(small, picture, t):
    called = []

    def note(_unet, args):
        called.extend(torch.as_tensor(args[1]).expand(len(args[0])).tolist())

    with hooked(small.unet.register_forward_pre_hook, note):
        run = small.stream(picture, quick(feature_timestep=t, feature_draws=2))
        while next(run).stage != "perturbing segments":
            pass
    assert called == [1, 101, 201, 301, *[t] * (1 if t == 1 else 2)]


def test_pictures_are_squashed_only_when_asked(small, picture):
    assert small(picture, quick(keep_aspect=False)).labels.shape == (64, 64)


def test_the_native_area_is_used_when_none_is_given(small, picture):
    run = small.stream(picture, quick(image_area=None, num_segments=2))
    with hooked(small.unet.register_forward_pre_hook, lambda _unet, args: shapes.append(tuple(args[0].shape))):
        shapes = []
        next(run)
    assert small.native_side == 128 and shapes == [(4, 4, 32, 48)]  # four steps of 128 x 192 pixels


def test_more_segments_than_cells_are_refused(small, picture):
    with pytest.raises(ValueError, match=r"num_segments is 129, .* 16 x 8 = 128 cells"):
        small(picture, quick(num_segments=129))


def test_a_layer_that_the_block_lacks_is_refused(small, picture):
    for name in ("feature_layer", "modulation_layer"):
        with pytest.raises(ValueError, match=f"{name} must be from 0 to 2 for this model, not 3"):
            small(picture, quick(**{name: 3}))


# --- Batches and memory


@pytest.fixture(scope="module")
def by_batch(small, picture):
    return {rows: small(picture, quick(num_segments=5), rows_per_batch=rows) for rows in (2, 4, 5, 12)}


def test_the_rows_of_a_batch_do_not_change_the_result(by_batch):
    for result in by_batch.values():
        np.testing.assert_allclose(result.differences, by_batch[2].differences, rtol=0, atol=1e-4)
        clear = by_batch[2].confidence > 2e-3
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(result.labels[clear], by_batch[2].labels[clear])


@pytest.mark.parametrize("rows", [1, 2, 5, 12])
def test_the_network_is_given_no_more_rows_than_allowed(small, picture, rows):
    batches = []
    with hooked(small.unet.register_forward_hook, lambda _unet, _args, out: batches.append(len(out.sample))):
        small(picture, quick(num_segments=5), rows_per_batch=rows)
    assert max(batches) == {1: 2, 2: 2, 5: 4, 12: 10}[rows]  # both signs of a segment go together


def too_large(limit, error):
    def hook(_unet, args):
        if len(args[0]) > limit:
            raise error

    return hook


MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=["cuda", "cpu"])
def test_a_batch_that_does_not_fit_is_run_again_in_smaller_ones(small, picture, by_batch, error):
    events = []
    with hooked(small.unet.register_forward_pre_hook, too_large(4, error)):
        result = small(picture, quick(num_segments=5), rows_per_batch=10, progress=events.append)
    assert_same(result, by_batch[4])
    assert events[-1].done == events[-1].total and max(event.done for event in events) == events[-1].total
    assert {event.total for event in events} == {4 + 2 * 5 * 4}
    assert any(b.done < a.done for a, b in zip(events, events[1:], strict=False))  # it did fail on the way
    assert number_of_hooks(small) == 0


def test_memory_that_is_too_small_for_one_segment_is_an_error(small, picture):
    hook = too_large(1, MEMORY_ERRORS[0])
    with hooked(small.unet.register_forward_pre_hook, hook), pytest.raises(torch.OutOfMemoryError):
        small(picture, quick())
    assert number_of_hooks(small) == 0


def test_another_error_is_not_taken_for_a_lack_of_memory(small, picture):
    calls = []

    def fail(_unet, args):
        calls.append(len(args[0]))
        if len(args[0]) > 1:
            raise RuntimeError("shapes do not fit")

    with hooked(small.unet.register_forward_pre_hook, fail), pytest.raises(RuntimeError, match="shapes do not fit"):
        small(picture, quick(), rows_per_batch=8)
    assert calls == [4]  # the steps of the inversion: not tried again


# --- Progress


@pytest.mark.parametrize("draws, t_f", [(1, 1), (3, 1), (2, 50)])
def test_progress_counts_the_rows_that_the_network_computes(small, picture, draws, t_f):
    rows, events = [], []
    begun = (small.unet.register_forward_pre_hook, lambda _unet, args: rows.append(len(args[0])))
    widened = (small.unet.register_forward_hook, lambda _unet, _args, out: rows.__setitem__(-1, len(out.sample)))
    with hooked(*begun), hooked(*widened):
        small(picture, quick(feature_draws=draws, feature_timestep=t_f), progress=events.append, rows_per_batch=4)
    assert list(dict.fromkeys(event.done for event in events)) == np.cumsum(rows).tolist()
    assert {event.total for event in events} == {sum(rows)}
    stages = [event.stage for event in events]
    expected = ["inverting the picture", *["reading features"] * ((draws, t_f) != (1, 1)), "perturbing segments"]
    assert list(dict.fromkeys(stages)) == expected


def test_streaming_yields_the_same_progress_and_result_as_calling(small, picture, plain):
    called, streamed = [], []
    small(picture, quick(), progress=called.append)
    run = small.stream(picture, quick())
    while True:
        try:
            streamed.append(next(run))
        except StopIteration as end:
            assert_same(end.value, plain)
            break
    assert [(e.stage, e.done, e.total) for e in streamed] == [(e.stage, e.done, e.total) for e in called]


def test_sketches_are_naive_until_masks_are_there_and_then_as_in_the_result(small, picture, by_batch):
    events = []
    result = small(picture, quick(num_segments=5), rows_per_batch=4, progress=events.append)  # two segments at a time
    sketches = [event.sketch for event in events if event.sketch]
    np.testing.assert_array_equal(sketches[0].labels, sketches[0].naive_labels)
    assert len(sketches) == 3 and not sketches[0].differences.any()
    for sketch, known in zip(sketches, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(sketch.coarse_labels, result.coarse_labels)
        np.testing.assert_array_equal(sketch.responses[:known], result.responses[:known])
        assert not sketch.responses[known:].any()
        waiting = sketch.naive_labels >= known
        np.testing.assert_array_equal(sketch.labels[waiting], sketch.naive_labels[waiting])
        np.testing.assert_array_equal(sketch.labels[~waiting], sketch.differences.argmax(0)[~waiting])
    assert (sketches[2].labels != sketches[2].naive_labels).any()
    assert_same(result, by_batch[4])


# --- Reading once, and again only what is no longer so


READ_AGAIN = [
    ({"strength": 3.0, "smoothing": 2.0, "num_segments": 3, "two_sided": False, "magnified_decoding": True}, 0),
    ({"modulation_timestep": 201}, 3),
    ({"feature_timestep": 50}, 2),
    ({"feature_layer": 1}, 4 + 1),
    ({"attention_injection": False}, 4),
    ({"seed": 7}, 4 + 1),
    ({"image_area": 96 * 96}, 4 + 1),
]


@pytest.mark.parametrize("changes, rows", READ_AGAIN, ids=lambda v: "-".join(v) if isinstance(v, dict) else "")
def test_only_what_the_settings_change_is_read_again_and_the_result_is_that_of_a_new_run(small, picture, changes, rows):
    settings = quick(num_segments=2, feature_draws=2)
    first = value_of(small.read(picture, settings))
    changed, computed = replace(settings, **changes), []
    with hooked(small.unet.register_forward_pre_hook, lambda _unet, args: computed.append(len(args[0]))):
        reading = value_of(small.read(picture, changed, previous=first))
    assert sum(computed) == rows
    assert_same(value_of(small.segment(reading)), small(picture, changed))


def test_a_reading_of_another_picture_is_not_used(small, picture):
    first = value_of(small.read(picture.rotate(180), quick()))
    reading = value_of(small.read(picture, quick(), previous=first))
    assert_same(value_of(small.segment(reading)), small(picture, quick()))


def test_a_probe_of_a_segments_cells_is_what_a_run_compares(small, picture):
    reading = value_of(small.read(picture, quick()))
    result = value_of(small.segment(reading))
    for i in range(4):
        cells = 10.0 * (result.coarse_labels == i)
        minus, plus = torch.from_numpy(value_of(small.probe(reading, np.stack([-cells, cells])))).permute(0, 3, 1, 2)
        own = response(minus[None], plus[None], reading.settings.smoothing)[0] / 127.5
        np.testing.assert_allclose(own, result.responses[i], rtol=2e-3, atol=2e-3)  # kept in half precision


def test_a_probe_of_nothing_is_the_picture_as_the_autoencoder_has_it(small, picture):
    reading = value_of(small.read(picture, quick()))
    painted = value_of(small.probe(reading, np.zeros((1, 8, 16))))
    expected = small._decode(reading.x_0)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(painted[0] / 127.5 - 1, expected, atol=1e-3)


@pytest.mark.parametrize("offsets", [np.zeros((1, 16, 8)), np.zeros((8, 16)), np.full((1, 8, 16), np.nan)])
def test_a_probe_that_does_not_fit_the_grid_is_refused(small, picture, offsets):
    reading = value_of(small.read(picture, quick()))
    with pytest.raises(ValueError, match="finite numbers, 8 rows of 16"):
        value_of(small.probe(reading, offsets))


# --- Leaving the network as it was


@pytest.mark.parametrize("stage", ["inverting the picture", "reading features", "perturbing segments"])
def test_between_calls_a_run_holds_neither_hook_nor_lock(small, picture, plain, stage):
    run = small.stream(picture, quick(feature_draws=2), rows_per_batch=2)
    while next(run).stage != stage:
        pass
    assert number_of_hooks(small) == 0
    assert_same(elsewhere(small, picture, quick()), plain)  # while the first is suspended
    run.close()
    assert number_of_hooks(small) == 0
    assert_same(elsewhere(small, picture, quick()), plain)


@pytest.mark.parametrize("stage", ["inverting the picture", "reading features", "perturbing segments"])
def test_an_exception_in_progress_ends_the_run_and_leaves_nothing_behind(small, picture, plain, stage):
    def stop(event):
        if event.stage == stage:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        small(picture, quick(feature_draws=2), progress=stop)
    assert number_of_hooks(small) == 0
    assert_same(elsewhere(small, picture, quick()), plain)


@pytest.mark.parametrize("call", [1, 2, 3, 4], ids=["inversion", "features", "modulation", "replay"])
def test_an_exception_in_a_layer_ends_the_run_and_leaves_nothing_behind(small, picture, plain, call):
    calls = []

    def fail(_module, _args):
        calls.append(number_of_hooks(small) - 1)  # its own is not counted
        if len(calls) == call:
            raise ZeroDivisionError("broken layer")

    broken = small.unet.mid_block.resnets[0]
    with hooked(broken.register_forward_pre_hook, fail), pytest.raises(ZeroDivisionError, match="broken layer"):
        small(picture, quick(feature_draws=2))
    assert len(calls) == call and min(calls) > 0
    assert number_of_hooks(small) == 0
    assert_same(elsewhere(small, picture, quick()), plain)


@pytest.mark.parametrize("injection", [True, False])
def test_threads_that_share_a_network_get_the_results_they_would_get_alone(small, picture, injection):
    settings = quick(num_segments=2, attention_injection=injection)
    pictures = [picture, ImageOps.flip(picture), ImageOps.invert(picture)]
    alone = [small(p, settings) for p in pictures]
    inside = []

    def enter(_unet, _args):
        inside.append(threading.get_ident())
        threading.Event().wait(0.002)  # lets the others try
        assert len(inside) == 1, "two threads in one network"

    def leave(_unet, _args, _output):
        inside.clear()

    entering, leaving = (small.unet.register_forward_pre_hook, enter), (small.unet.register_forward_hook, leave)
    with hooked(*entering), hooked(*leaving), ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda p: small(p, settings), pictures))
    for a, b in zip(alone, together, strict=True):
        assert_same(a, b)
    assert not np.array_equal(alone[0].differences, alone[1].differences)


def test_an_unknown_layer_is_an_error_that_lists_near_names(small):
    with pytest.raises(ValueError, match=r"no layer 'up_blocks\.1\.attention\.0'.*up_blocks\.1\.attentions\.0"):
        layer(small.unet, "up_blocks.1.attention.0")


def test_recording_a_layer_that_never_runs_is_an_error(small):
    with pytest.raises(RuntimeError, match="never ran: conv_out"), record(small.unet, ["conv_in", "conv_out"]) as kept:
        small.unet.conv_in(torch.zeros(1, 4, 8, 8))
    assert kept["conv_in"].shape == (1, 32, 8, 8) and number_of_hooks(small) == 0


# --- Finding layers


def unet_on_paper(**config):
    """A U-Net with shapes but without weights; Stable Diffusion's block types unless told otherwise."""
    with torch.device("meta"):
        return UNet2DConditionModel(**{"sample_size": 64, "cross_attention_dim": 768} | config)


@pytest.mark.parametrize("sample_size, block, stride", [(64, 1, 4), (32, 2, 2), (96, 1, 4), ((64, 64), 1, 4)])
def test_layers_of_stable_diffusion_are_in_its_16x16_upward_block_or_else_the_coarsest(sample_size, block, stride):
    layers = find_layers(unet_on_paper(sample_size=sample_size))
    of_block = tuple(f"up_blocks.{block}.attentions.{i}.transformer_blocks.0.attn2" for i in range(3))
    assert layers.block == of_block
    assert layers.modulation == f"up_blocks.{block}.attentions.2.transformer_blocks.0.attn2"
    later = [f"up_blocks.{i}" for i in range(block + 1, 4)]
    assert layers.differing == (f"up_blocks.{block}.attentions.2", *later)
    assert layers.stride == stride
    assert [len(layers.self_attention), len(layers.cross_attention)] == [16, 16]


def test_layers_of_the_small_pipeline_are_in_its_16x16_block(small):
    assert small.layers.block[0] == "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    assert small.layers.modulation == "up_blocks.1.attentions.2.transformer_blocks.0.attn2"
    assert small.native_side // small.vae_scale_factor // small.layers.stride == 16


def test_the_last_cross_attention_is_modulated_where_a_block_has_fewer_than_three():
    layers = find_layers(unet_on_paper(layers_per_block=1))
    assert layers.modulation == "up_blocks.1.attentions.1.transformer_blocks.0.attn2"
    assert layers.differing[0] == "up_blocks.1.attentions.1"


REFUSED = {
    "takes 9 channels and predicts 4": {"in_channels": 9},
    "this one also has addition_embed_type": {"addition_embed_type": "text"},
    "this one also has class_embed_type": {"class_embed_type": "timestep"},
    "upward block with cross-attention; this U-Net has none": {"up_block_types": ("UpBlock2D",) * 4},
    "lacks sample_size": {"sample_size": None},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_networks_that_do_not_fit_are_refused_with_the_reason(reason):
    unet = unet_on_paper(**REFUSED[reason])
    with pytest.raises(ValueError, match=reason):
        find_layers(unet)


def test_a_network_of_another_class_is_refused():
    with torch.device("meta"):
        unet = UNet2DModel(sample_size=32, block_out_channels=(32, 32, 32, 32))
    with pytest.raises(ValueError, match="needs a UNet2DConditionModel .* not UNet2DModel"):
        find_layers(unet)
