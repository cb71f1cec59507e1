"""Several pictures with one set of segments."""

import itertools

import numpy as np
import pytest
from conftest import quick, value_of
from PIL import Image

import emerdiff
from emerdiff.matching import agreement
from emerdiff.segments import cluster_together

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
    alone = small(picture, quick())
    assert agreement(first.coarse_labels, alone.coarse_labels) > 0.99  # and those of an ordinary run


def test_the_order_of_the_pictures_changes_nothing(miniature, picture, upright, pair):
    second, first = miniature.segment_together([upright, picture], SETTINGS, rows_per_batch=4)
    assert_same(first, pair[0])
    assert_same(second, pair[1])


def test_the_same_things_on_other_backgrounds_get_the_same_segments_whatever_their_share():
    """Three kinds of cells; each picture adds its own to all of them, and has them in another number and order."""
    rng = np.random.default_rng(0)
    kinds = 5 * np.eye(3, 8)
    shares = (8, 8, 8), (4, 12, 8), (9, 7, 4)
    truths = [rng.permutation(np.repeat([0, 1, 2], of)).reshape(-1, 4) for of in shares]
    features = [kinds[t] + 0.1 * rng.normal(size=(*t.shape, 8)) + 9 * rng.normal(size=8) for t in truths]
    labels = cluster_together(features, 3, 4)
    of_kind = {kind: {*np.unique(np.concatenate([own[t == kind] for own, t in zip(labels, truths, strict=True)]))}
               for kind in range(3)}  # fmt: skip
    assert sorted(map(len, of_kind.values())) == [1, 1, 1] and set.union(*of_kind.values()) == {0, 1, 2}


def test_pictures_of_other_sizes_have_one_set_of_segments(pair):
    assert pair[0].labels.shape == pair[1].labels.shape[::-1] != pair[1].labels.shape
    assert {one.settings.num_segments for one in pair} == {K}


def test_each_picture_is_perturbed_for_its_own_segments_only(miniature, picture, upright, pair):
    """As in a run of this picture alone that begins with these cells; nothing responds to a segment without any."""
    for one, image in zip(pair, (picture, upright), strict=True):
        own = miniature(image, SETTINGS, coarse_labels=one.coarse_labels, rows_per_batch=4)
        assert_same(one, own)
        absent = np.setdiff1d(np.arange(K), one.coarse_labels)
        assert not one.responses[absent].any() and not np.isin(one.labels, absent).any()


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
    assert events[0].total == 2 * (read + segment)
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
    assert cuts.shape[1] == K
    three = [emerdiff.merge(one, cuts[3]) for one in pair]
    for one, cut in zip(pair, three, strict=True):
        assert cut.settings.num_segments == 3
        np.testing.assert_array_equal(cut.coarse_labels, cuts[3][one.coarse_labels])
    merged, cells = (np.concatenate([c.coarse_labels.ravel() for c in of]) for of in (three, pair))
    assert len(np.unique(merged)) <= 3 and all(len(np.unique(merged[cells == i])) == 1 for i in np.unique(cells))


def test_segments_without_cells_are_not_perturbed_and_nothing_responds_to_them(small, picture):
    coarse, events = np.arange(128).reshape(8, 16) // 64 * 3, []  # segments 0 and 3 of 4
    result = small(picture, quick(), coarse_labels=coarse, progress=events.append)
    read, segment = small.rows(quick())
    assert events[-1].done == events[-1].total == read + segment // 2
    assert result.responses[[0, 3]].any((1, 2, 3)).all() and not result.responses[[1, 2]].any()


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
