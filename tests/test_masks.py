import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve

from emerdiff.drawing import indexed_png, overlay, palette
from emerdiff.masks import confidence, gaussian_blur, label, label_at, magnification, response, upsample_naive


def kernel_3x3() -> np.ndarray:
    """A Gaussian of sigma 0.8 at distances 0, 1 and sqrt(2), summing to 1."""
    corner, edge, middle = np.exp(-2 / (2 * 0.64)), np.exp(-1 / (2 * 0.64)), 1.0
    kernel = np.array([[corner, edge, corner], [edge, middle, edge], [corner, edge, corner]])
    return kernel / kernel.sum()


# --- Differences


def test_a_blur_of_0_8_is_the_notebooks_3x3_filter():
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = kernel_3x3()
    np.testing.assert_allclose(gaussian_blur(x, 0.8)[0, 0], expected, atol=1e-7)


def test_a_blur_reflects_edges_without_repeating_them_and_keeps_channels_apart():
    x = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    expected = [[convolve(channel, kernel_3x3(), mode="mirror") for channel in row] for row in x.double().numpy()]
    np.testing.assert_allclose(gaussian_blur(x, 0.8), expected, atol=1e-6)


@pytest.mark.parametrize("sigma, radius", [(0.3, 1), (1.0, 1), (1.01, 2), (5, 5), (20, 20)])
def test_a_blurs_radius_is_sigma_rounded_up_and_it_keeps_the_sum(sigma, radius):
    x = torch.zeros(1, 1, 64, 64)
    x[..., 32, 32] = 1
    blurred = gaussian_blur(x, sigma)[0, 0]
    rows = torch.nonzero(blurred.sum(1))
    assert rows.min() == 32 - radius and rows.max() == 32 + radius
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(gaussian_blur(torch.full((1, 2, 64, 64), 3.0), sigma), torch.full((1, 2, 64, 64), 3.0))


def test_a_blur_of_0_changes_nothing():
    x = torch.rand(1, 3, 4, 4)
    assert torch.equal(gaussian_blur(x, 0), x)


def test_small_changes_are_magnified_to_1_and_large_ones_left():
    changes = torch.zeros(4, 4, 2, 3)
    changes[0, 1, 1, 2], changes[1, 3, 0, 0], changes[2] = -0.25, 0.1, 3
    assert magnification(changes).shape == (4, 1, 1, 1)
    assert magnification(changes).flatten()[:3].tolist() == pytest.approx([4, 10, 1])
    assert not (magnification(changes) * changes)[3].any()  # nor is nothing made something


def test_a_difference_is_the_norm_over_colours_of_the_blurred_change():
    plus, minus = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    plus[:, :, 4, 4] = torch.tensor([1.0, 0, -1])
    minus[:, :, 4, 4] = torch.tensor([-1.0, -1, -1])
    expected = np.zeros((8, 8))
    expected[4, 4] = np.sqrt(2**2 + 1 + 0)
    np.testing.assert_allclose(response(minus, plus, 0).norm(dim=1)[0], expected, atol=1e-6)
    expected[3:6, 3:6] = expected[4, 4] * kernel_3x3()  # before the norm: linear where all colours change alike
    np.testing.assert_allclose(response(minus, plus, 0.8).norm(dim=1)[0], expected, atol=1e-6)


# --- Labels


def test_a_pixels_label_is_its_largest_difference_and_confidence_the_share_by_which_the_second_falls_short():
    differences = np.zeros((3, 1, 4), np.float32)
    differences[:, 0, 0] = 4, 1, 3  # clear
    differences[:, 0, 1] = 2, 5, 5  # a tie: the first
    differences[:, 0, 2] = 0, 0, 0  # nothing changes
    differences[:, 0, 3] = 0, 0, 8  # one alone
    labels, shares = label(differences), confidence(differences)
    assert labels.tolist() == [[0, 1, 0, 2]] and labels.dtype == np.int32
    assert shares.tolist() == [[0.25, 0, 0, 1]] and shares.dtype == np.float32


def test_labels_at_the_same_size_are_the_labels():
    differences = np.random.default_rng(0).random((5, 12, 20), np.float32)
    np.testing.assert_array_equal(label_at(differences, (20, 12)), label(differences))


def test_labels_at_twice_the_size_agree_inside_segments_and_part_at_the_true_border():
    differences = np.zeros((2, 8, 12), np.float32)
    differences[0, :, :5] = 1
    differences[1, :, 5:] = 1
    labels = label_at(differences, (24, 16))
    assert labels.shape == (16, 24) and labels.dtype == np.int32
    assert (labels[:, :10] == 0).all() and (labels[:, 10:] == 1).all()


def test_labels_at_another_size_compare_differences_not_labels():
    differences = np.array([[[1.0, 0.0]], [[0.0, 3.0]]], np.float32)  # the second is the stronger
    assert label_at(differences, (8, 1)).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]


def test_naive_upsampling_is_bilinear_on_one_hot_labels():
    assert upsample_naive(np.array([[0, 1], [0, 1]]), 2, (4, 4)).tolist() == [[0, 0, 1, 1]] * 4
    labels = upsample_naive(np.array([[0, 1], [1, 1]], np.int32), 2, (8, 8))
    assert labels.dtype == np.int32
    weight = np.clip((np.arange(8) + 0.5) / 4 - 0.5, 0, 1)  # of the second cell, along each side
    zero = np.outer(1 - weight, 1 - weight)
    np.testing.assert_array_equal(labels, (zero < 0.5).astype(int))
    assert 0 < (labels == 0).sum() < 16  # the corner is rounded off, not square


def test_naive_upsampling_keeps_height_and_width_apart():
    labels = upsample_naive(np.array([[0, 1, 2]]), 3, (2, 9))
    assert labels.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 2


# --- Drawing


def test_a_segments_colour_does_not_depend_on_how_many_there_are_and_all_differ():
    colours = palette(64)
    assert colours.shape == (64, 3) and colours.dtype == np.uint8
    for k in (2, 20, 63):
        np.testing.assert_array_equal(palette(k), colours[:k])
    assert len({tuple(c) for c in colours.tolist()}) == 64
    assert len({tuple(c) for c in palette(256).tolist()}) == 256


def test_labels_survive_an_indexed_png():
    labels = np.arange(256, dtype=np.int32).reshape(8, 32)
    file = io.BytesIO()
    indexed_png(labels, palette(256)).save(file, "PNG")
    picture = Image.open(file)
    assert picture.mode == "P"
    np.testing.assert_array_equal(np.asarray(picture), labels)
    np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), palette(256)[labels])


def test_an_overlay_mixes_colours_and_outlines_segments_in_white():
    image = np.full((2, 4, 3), 100, np.uint8)
    labels = np.array([[0, 0, 1, 1]] * 2)
    mixed = overlay(image, labels, palette(2), opacity=0.25)
    assert (mixed[:, 1] == 255).all()
    expected = (0.75 * 100 + 0.25 * palette(2).astype(float)).round()
    np.testing.assert_array_equal(mixed[0, [0, 2, 3]], expected[[0, 1, 1]])
    np.testing.assert_array_equal(overlay(image, labels, palette(2), 1, outlines=False), palette(2)[labels])


def test_a_segment_of_no_opacity_leaves_the_picture_as_it_is():
    image = np.full((2, 4, 3), 100, np.uint8)
    labels = np.array([[0, 0, 1, 1]] * 2)
    mixed = overlay(image, labels, palette(2), np.array([0, 1]))
    assert (mixed[:, :2] == 100).all() and (mixed[:, 2:] == palette(2)[1]).all()
