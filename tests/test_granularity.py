"""The number of segments that follows from the picture."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import quick
from PIL import Image

import emerdiff
from emerdiff import Settings, granular, heights

ROUGH = {"two_sided": False, "replay_steps": 1}


@pytest.fixture(scope="module")
def fine(small, picture):
    return small(picture, quick(num_segments=30, **ROUGH))


def test_the_last_height_is_wards_of_the_pair_that_merges_first_and_heights_fall(fine):
    cells, features = fine.coarse_labels.ravel(), fine.features.reshape(128, -1).astype(float)
    means, n = np.stack([features[cells == i].mean(0) for i in range(30)]), np.bincount(cells)
    costs = [
        2 * n[i] * n[j] / (n[i] + n[j]) * ((means[i] - means[j]) ** 2).sum() / 128 for i in range(30) for j in range(i)
    ]
    found = heights(fine)
    assert len(found) == 31 and found[30] == pytest.approx(np.sqrt(min(costs)))
    assert np.isinf(found[:2]).all() and (np.diff(found[1:]) <= 0).all()


@pytest.mark.parametrize("n", [2, 3, 12, 29])
def test_segments_that_differ_less_than_the_height_are_merged_and_no_others(fine, n):
    between = (heights(fine)[n] + heights(fine)[n + 1]) / 2
    cut = replace(fine, settings=replace(fine.settings, merge_height=float(between)))
    assert granular(cut) == n
    assert granular(cut, granularity=between / heights(fine)[30]) == 30
    assert granular(cut, granularity=1e-9) == 2


def test_without_a_height_of_the_model_it_does_not_depend_on_the_size_of_the_features(fine):
    larger = replace(fine, features=1000 * fine.features)
    assert [granular(one, granularity=3) for one in (fine, larger)] == [granular(fine, granularity=3)] * 2


def test_with_a_height_of_the_model_a_plain_picture_has_fewer_segments_than_a_rich_one(fine):
    rich = replace(fine, settings=replace(fine.settings, merge_height=float(heights(fine)[12])))
    assert granular(replace(rich, features=rich.features / 3)) < granular(rich) == 12


def test_an_automatic_run_is_the_fine_map_cut_and_says_how_many_segments_it_has(small, picture, fine):
    height, events = float(heights(fine)[7]), []
    settings = quick(num_segments="auto", merge_height=height, **ROUGH)
    result = small(picture, settings, progress=events.append)
    assert result.settings == replace(settings, num_segments=7)
    np.testing.assert_array_equal(result.coarse_labels, emerdiff.recut(fine, 7).coarse_labels)
    assert result.responses.any((1, 2, 3)).all() and result.responses.shape[0] == 7
    read, segment = small.rows(settings)
    assert events[0].total == read + segment == read + 30  # the most there can be
    assert events[-1].done == events[-1].total == read + 7


def test_an_automatic_set_has_one_number_for_all(small, picture):
    one, other = small.segment_together([picture, picture.rotate(90, expand=True)], quick(num_segments="auto", **ROUGH))
    assert one.settings == other.settings and isinstance(one.settings.num_segments, int)
    assert len(one.responses) == len(other.responses) == one.settings.num_segments


def test_automatic_is_refused_where_the_cells_are_given_and_any_other_word_always(small, picture):
    with pytest.raises(ValueError, match="with coarse_labels, num_segments must be a number, not 'auto'"):
        small(picture, quick(num_segments="auto"), coarse_labels=np.zeros((8, 16), int))
    with pytest.raises(ValueError, match="num_segments must be a whole number from 2 to 256 or 'auto', not 'many'"):
        Settings(num_segments="many")


def test_the_miniature_has_a_height_of_its_own_and_gives_a_plain_picture_fewer_segments(miniature, picture):
    plain = Image.fromarray(np.uint8(np.mgrid[:128, :192, :3][0] // 4))
    changes = {"feature_draws": 1, "kmeans_n_init": 1, "image_area": 128 * 128, **ROUGH}
    settings = miniature.settings(num_segments="auto", **changes)
    assert settings.merge_height == miniature.settings().merge_height > 0
    few, many = (miniature(image, settings).settings.num_segments for image in (plain, picture))
    assert 2 <= few < many < 30


def test_a_set_of_small_pictures_begins_with_no_more_segments_than_each_has_cells(miniature, picture):
    left, right = (picture.crop((side, 0, side + 96, 96)) for side in (0, 96))
    settings = quick(num_segments="auto", merge_height=0, **ROUGH)  # nothing is merged; a grid of 4 x 4 cells
    for one in miniature.segment_together([left, right], settings):
        assert one.coarse_labels.size == one.settings.num_segments == 16
        assert one.notes[-1].startswith("The number of segments, 16, follows from the pictures: 16 were found")


def test_segments_whose_cells_are_all_the_same_merge_like_any_others(fine):
    same = replace(fine, features=np.ones_like(fine.features))
    groups = emerdiff.cuts(same)
    assert [len(np.unique(row)) for row in groups[1:]] == list(range(1, len(groups)))
    assert emerdiff.heights(same)[2:].max() < 1e-6
