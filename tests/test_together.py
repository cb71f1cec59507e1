"""Several pictures with one set of segments."""

import itertools

import numpy as np
import pytest
from conftest import quick, value_of
from PIL import Image

import emerdiff

K = 12
SETTINGS = quick(num_segments=K, two_sided=False, replay_steps=2, image_area=128 * 128)


@pytest.fixture(scope="module")
def upright():
    """A picture that has little in common with the other: a dark gradient, on another grid."""
    return Image.fromarray(np.uint8(np.mgrid[:128, :64, :3][0] // 4))


@pytest.fixture(scope="module")
def pair(miniature, picture, upright):
    return miniature.segment_together([picture, upright], SETTINGS, rows_per_batch=4)


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours.coarse_labels, theirs.coarse_labels)
    np.testing.assert_array_equal(ours.responses, theirs.responses)
    assert ours.settings == theirs.settings and ours.known is theirs.known is None


def test_one_picture_alone_is_the_ordinary_run(small, picture):
    (alone,) = small.segment_together([picture], quick())
    assert_same(alone, small(picture, quick()))


def test_the_same_picture_twice_gets_the_same_segments_in_both(small, picture):
    first, second = small.segment_together([picture, picture.copy()], quick())
    assert_same(first, second)
    assert len(np.unique(first.coarse_labels)) == 4


def test_the_order_of_the_pictures_changes_nothing(miniature, picture, upright, pair):
    second, first = miniature.segment_together([upright, picture], SETTINGS, rows_per_batch=4)
    assert_same(first, pair[0])
    assert_same(second, pair[1])


def test_the_segments_are_k_means_over_all_cells_and_sizes_may_differ(pair):
    assert pair[0].labels.shape == pair[1].labels.shape[::-1] != pair[1].labels.shape
    cells = np.concatenate([one.coarse_labels.ravel() for one in pair])
    features = np.concatenate([one.features.reshape(len(one.coarse_labels.ravel()), -1) for one in pair])
    means = np.stack([features[cells == i].mean(0) for i in range(K)])
    # where Lloyd's algorithm has ended, each cell has the nearest mean
    nearest = np.linalg.norm(features[:, None] - means, axis=2).argmin(1)
    assert (nearest == cells).mean() > 0.99


def test_each_picture_is_perturbed_for_its_own_segments_only(miniature, picture, upright, pair):
    """As in a run of this picture alone that begins with these cells; nothing responds to a segment without any."""
    for one, image in zip(pair, (picture, upright), strict=True):
        own = miniature(image, SETTINGS, coarse_labels=one.coarse_labels, rows_per_batch=4)
        assert_same(one, own)
        absent = np.setdiff1d(np.arange(K), one.coarse_labels)
        assert not one.responses[absent].any() and not np.isin(one.labels, absent).any()
    assert {*range(K)} == {*np.unique(np.concatenate([one.coarse_labels.ravel() for one in pair]))}


def test_the_rows_are_those_of_reading_each_picture_and_of_each_ones_own_segments(miniature, picture, upright, pair):
    rows, events = [], []
    widened = miniature.unet.register_forward_hook(lambda _unet, _args, out: rows.append(len(out.sample)))
    try:
        miniature.segment_together([picture, upright], SETTINGS, rows_per_batch=4, progress=events.append)
    finally:
        widened.remove()
    read, segment = miniature.rows(SETTINGS)
    own = sum(len(np.unique(one.coarse_labels)) for one in pair)
    assert events[-1].done == events[-1].total == sum(rows) == 2 * read + own * segment // K
    assert all(a.done <= b.done and a.total >= b.total for a, b in itertools.pairwise(events))
    assert own < 2 * K and events[0].total == 2 * (read + segment)  # some have no cells in one of the pictures
    assert [picture for picture, _ in itertools.groupby(event.picture for event in events)] == [0, 1, 0, 1]
    for i, one in enumerate(pair):
        sketch = next(event.sketch for event in events if event.sketch and event.picture == i)
        np.testing.assert_array_equal(sketch.labels, one.naive_labels)


def test_a_run_of_several_can_be_stopped_at_any_time_and_leaves_nothing_behind(miniature, picture, upright, pair):
    for stop in (1, 4, 7):
        run = miniature.stream_together([picture, upright], SETTINGS, rows_per_batch=4)
        for _ in range(stop):
            next(run)
        run.close()
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in miniature.unet.modules())
    assert_same(miniature.segment_together([picture, upright], SETTINGS, rows_per_batch=4)[1], pair[1])


def test_all_are_cut_alike(pair):
    cuts = emerdiff.cuts(*pair)
    assert cuts.shape == (K + 1, K)
    three = [emerdiff.merge(one, cuts[3]) for one in pair]
    for one, cut in zip(pair, three, strict=True):
        assert cut.settings.num_segments == 3
        np.testing.assert_array_equal(cut.coarse_labels, cuts[3][one.coarse_labels])
    merged, cells = (np.concatenate([c.coarse_labels.ravel() for c in of]) for of in (three, pair))
    assert len(np.unique(merged)) == 3 and all(len(np.unique(merged[cells == i])) == 1 for i in range(K))


def test_cuts_of_one_picture_are_unchanged_by_a_copy_of_it(small, picture):
    one = small(picture, quick(num_segments=6))
    np.testing.assert_array_equal(emerdiff.cuts(one, one), emerdiff.cuts(one))


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_or_too_many_pictures_are_refused(small, picture, count):
    with pytest.raises(ValueError, match=f"1 to 8 pictures can be segmented together, not {count}"):
        small.segment_together([picture] * count, quick())


def test_a_picture_that_cannot_be_used_is_named_before_anything_is_computed(small, picture):
    with pytest.raises(ValueError, match="picture 2 of 2: .*one colour"):
        value_of(small.stream_together([picture, Image.new("RGB", (64, 64))], quick()))
