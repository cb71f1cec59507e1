"""What is alike: the cosine of cells, and how it is carried to the pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import quick

import emerdiff
from emerdiff.alike import alike, cell_at, sharpened
from emerdiff.masks import upsample_nearest

CELLS = np.array([[0, 0, 1], [0, 2, 1]])
SIZE = (24, 36)  # (H, W): cells of 12 x 12 pixels
DIRECTIONS = np.array([[[1, 0], [3, 0], [-2, 0]], [[0, 1], [0, -1], [-2, 0]]], np.float32)  # their mean is 0


def result(features: np.ndarray) -> emerdiff.Segmentation:
    coarse = np.zeros(features.shape[:2], np.int32)
    blank = np.zeros((8, 8, 3), np.uint8)
    return emerdiff.Segmentation(blank, coarse, features, np.zeros((4, 3, 8, 8)), (8, 8), quick(), "none")


@pytest.mark.parametrize("changed", [lambda f: f, lambda f: 7 * f, lambda f: f + 100], ids=["", "scaled", "shifted"])
def test_likeness_is_the_cosine_without_what_all_cells_have_in_common(changed):
    (found,) = alike([result(changed(DIRECTIONS))], (0, 0))
    np.testing.assert_allclose(found, [[1, 1, -1], [0, 0, -1]], atol=1e-5)


def test_each_picture_is_compared_without_what_its_own_cells_have_in_common():
    one, other = result(DIRECTIONS), result(DIRECTIONS.transpose(1, 0, 2) + np.float32([5, -9]))
    found = alike([one, other], (1, 0), picture=0)
    np.testing.assert_allclose(found[0], [[0, 0, 0], [1, -1, 0]], atol=1e-5)
    np.testing.assert_allclose(found[1], found[0].T, atol=1e-5)
    np.testing.assert_allclose(alike([one, other], (0, 1), picture=1)[0], found[0], atol=1e-5)


def test_a_cell_like_the_mean_is_like_nothing():
    features = np.concatenate([DIRECTIONS, np.zeros((1, 3, 2), np.float32)]) + np.float32(0.1)
    (found,) = alike([result(features)], (0, 0))
    assert not found[2].any() and not alike([result(features)], (2, 1))[0].any()


@pytest.mark.parametrize(("cell", "picture"), [((2, 0), 0), ((0, -1), 0), ((0, 0), 1), ((0, 0), -1)])
def test_a_place_that_is_not_there_is_refused(cell, picture):
    with pytest.raises(ValueError, match="must be from 0 to 0|a row from 0 to 1 and a column from 0 to 2"):
        alike([result(DIRECTIONS)], cell, picture)


def test_in_one_segment_values_are_enlarged_as_usual():
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    for size in ((30, 50), (17, 44), (3, 5)):
        usual = F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear")[0, 0]
        found = sharpened(values, np.zeros((3, 5), int), np.zeros(size, int))
        np.testing.assert_allclose(found, usual, atol=1e-5)


def test_values_of_segments_end_at_the_edges_of_the_pixels_and_not_of_the_cells():
    labels = np.random.default_rng(0).integers(0, 3, SIZE)  # wherever the pixels are
    found = sharpened(np.array([5.0, -1, 2])[CELLS], CELLS, labels)
    np.testing.assert_allclose(found, np.array([5.0, -1, 2])[labels], atol=1e-6)


def test_within_a_segment_values_change_gradually_and_others_do_not_mix_in():
    coarse, values = np.array([[0, 0, 0, 1]]), np.array([[0.0, 1, 2, 100]])
    found = sharpened(values, coarse, np.zeros((1, 40), int))[0]
    np.testing.assert_allclose(found[5:25], np.arange(20) / 10 + 0.05, atol=1e-5)  # from middle to middle
    assert (found[25:] == 2).all()  # beyond its last cell


def test_pixels_of_a_segment_without_cells_take_what_is_around_them():
    values = np.random.default_rng(0).normal(size=CELLS.shape)
    everywhere = sharpened(values, np.zeros_like(CELLS), np.zeros(SIZE, int))
    np.testing.assert_array_equal(sharpened(values, CELLS, np.full(SIZE, 3)), everywhere)
    assert cell_at(np.full(SIZE, 3), CELLS, 13, 14) == (1, 1)


def test_the_cell_of_a_pixel_is_the_nearest_one_of_its_segment():
    labels = upsample_nearest(CELLS, SIZE)
    for row, column in np.ndindex(CELLS.shape):
        assert cell_at(labels, CELLS, 12 * row + 6, 12 * column + 6) == (row, column)
    labels[:, 20:26] = 1  # the segment reaches over cells of others
    assert cell_at(labels, CELLS, 3, 21) == (0, 2) and cell_at(labels, CELLS, 20, 25) == (1, 2)
    labels[0, 0] = 2
    assert cell_at(labels, CELLS, 0, 0) == (1, 1)


def test_of_a_real_picture_a_place_is_most_like_its_own_segment(small, picture):
    found = small(picture, quick())
    for label in range(4):
        row, column = np.argwhere(found.coarse_labels == label)[0]
        (near,) = alike([found], (row, column))
        assert near[row, column] == pytest.approx(1, abs=1e-5) and np.abs(near).max() <= 1
        inside = found.coarse_labels == label
        assert near[inside].mean() > near[~inside].mean()
    again = alike([replace(found)], (row, column))[0]
    np.testing.assert_array_equal(again, near)
