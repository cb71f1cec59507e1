"""What the benchmark counts; how long things take is not tested."""

import pytest
import torch
from conftest import quick
from diffusers import AutoencoderTiny

from emerdiff import EmerDiffPipeline
from emerdiff.matching import agreement
from emerdiff.miniature.model import new_scheduler
from emerdiff.studies import benchmark

SIZE = (64, 64)


@pytest.fixture(scope="module")
def square(picture):
    return picture.crop((0, 0, 128, 128)).resize(SIZE)


def test_operations_of_each_call_are_counted_by_hand(small):
    decoder = torch.nn.Conv2d(3, 5, 3, bias=False)
    with benchmark.metered(small.unet, decoder, count=True) as calls, torch.inference_mode():
        decoder(torch.zeros(2, 3, 10, 10))
        for rows in (1, 3):
            small.unet(torch.zeros(rows, 4, 16, 16), 1, encoder_hidden_states=torch.zeros(rows, 77, 32))
    conv, one, three = calls
    assert (conv.network, conv.flop) == ("decoder", 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3))
    assert [(call.network, call.rows) for call in (one, three)] == [("unet", 1), ("unet", 3)]
    assert three.flop == pytest.approx(3 * one.flop, rel=0.01) and one.flop > 1e7  # the time embedding is one row's
    assert all(call.end > call.begin for call in calls)


def test_a_meter_is_gone_after_an_exception(small):
    with pytest.raises(ZeroDivisionError), benchmark.metered(small.unet, small.vae.decoder, count=False):
        assert "forward" in vars(small.unet)
        raise ZeroDivisionError
    assert "forward" not in vars(small.unet) and "forward" not in vars(small.vae.decoder)


def test_the_published_procedure_is_measured_to_its_end_and_gives_the_exact_labels(small, square):
    settings = quick(num_segments=3, feature_draws=2)
    published = benchmark.run_published(small, square, settings, whole=True)
    exact = benchmark.run(small, square, settings, "exact", limit=60)
    assert (published.rows, published.decodes) == (10 + 2 + 4 + 2 * 4 * 3, 6)
    assert (exact.rows, exact.decodes) == (4 + 1 + 2 * 4 * 3, 6)
    assert agreement(exact.labels, published.labels) > 0.995
    assert not published.extrapolated and not exact.extrapolated
    assert exact.modulated_tflop < exact.tflop < published.tflop


def test_a_published_procedure_that_is_not_run_is_multiplied_out(small, square):
    settings = quick(num_segments=3, feature_draws=2)
    whole, sampled = (benchmark.run_published(small, square, settings, whole=run) for run in (True, False))
    assert sampled.extrapolated and sampled.labels is None and sampled.seconds > 0
    assert (sampled.rows, sampled.decodes, sampled.tflop) == (whole.rows, whole.decodes, whole.tflop)


@pytest.mark.parametrize(("two_sided", "k", "rows", "decodes"), [(True, 10, 2 * 4 * 10, 20), (False, 20, 4 * 20, 21)])
def test_a_run_that_is_cut_short_is_extrapolated_to_all_rows_and_decodes(small, square, two_sided, k, rows, decodes):
    settings = quick(num_segments=k, two_sided=two_sided)
    short, whole = (benchmark.run(small, square, settings, "exact", limit) for limit in (0, 60))
    assert short.extrapolated and short.labels is None and not whole.extrapolated
    assert (short.rows, short.decodes) == (whole.rows, whole.decodes) == (4 + rows, decodes)
    assert short.tflop == pytest.approx(whole.tflop, rel=0.05)


def test_sharing_attention_saves_operations(small, square):
    plain = EmerDiffPipeline(**small.components)
    plain.share_attention = False
    own, shared = (benchmark.run(pipe, square, quick(), "exact", limit=60).modulated_tflop for pipe in (plain, small))
    assert shared < 0.95 * own


def test_the_pipelines_of_true_size_have_it(monkeypatch):
    scheduler = new_scheduler()
    monkeypatch.setattr(benchmark, "new_scheduler", lambda: scheduler)
    with torch.device("meta"):  # networks without weights
        pipe, light = benchmark.stable_diffusion_sized(), benchmark.light_sized()
        tiny = AutoencoderTiny()
    parameters = {name: sum(p.numel() for p in getattr(pipe, name).parameters()) for name in ("unet", "vae")}
    assert parameters == {"unet": 859_520_964, "vae": 83_653_863}
    assert pipe.native_side == 512 and pipe.layers.block[0].startswith("up_blocks.1.attentions.0.")
    assert sum(p.numel() for p in light.unet.parameters()) == 323_384_964  # as BK-SDM-Tiny's
    assert light.native_side == 512 and light.layers.block[0].startswith("up_blocks.0.attentions.0.")
    assert len(tiny.config.block_out_channels) == len(pipe.vae.config.block_out_channels)


def test_growth_is_drawn_by_segments_and_by_side():
    rows = [
        {"name": name, "k": k, "side": side, "seconds": seconds}
        for name, seconds in (("exact", 4.0), ("fast", 2.0), ("preview", 1.0))
        for k, side in ((10, 256), (5, 256), (10, 128))
    ]
    left, right = benchmark.figure(rows, 256).axes
    assert [list(line.get_xdata()) for line in left.lines] == [[5, 10]] * 3
    assert [list(line.get_xdata()) for line in right.lines] == [[128, 256]] * 3
    assert [line.get_label() for line in left.lines] == ["exact", "fast", "preview"]
