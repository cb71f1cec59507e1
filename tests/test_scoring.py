"""Scores from label maps: by hand on small maps, and what must hold for any."""

import numpy as np
import pytest

from emerdiff.drawing import boundaries
from emerdiff.masks import pooled
from emerdiff.matching import agreement
from emerdiff.studies import scoring
from emerdiff.studies.scoring import Table, boundary_counts, tabulate


def columns(*values, height=6):
    return np.tile(np.array(values), (height, 1))


def test_boundaries_lie_before_a_change_to_the_right_or_below():
    edges = boundaries(np.array([[0, 0, 1], [0, 0, 1], [2, 2, 2]]))
    assert edges.astype(int).tolist() == [[0, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_boundary_counts_allow_for_a_tolerance():
    truth = columns(0, 0, 0, 0, 1, 1, 1, 1, 1, 1)  # an edge at 3
    ours = columns(0, 0, 0, 0, 0, 0, 1, 1, 2, 2)  # edges at 5 and 7
    assert boundary_counts(ours, truth, 2).tolist() == [6, 12, 6, 6]
    assert boundary_counts(ours, truth, 1).tolist() == [0, 12, 0, 6]
    assert boundary_counts(ours, truth, 4).tolist() == [12, 12, 6, 6]
    assert boundary_counts(np.zeros_like(truth), truth, 2).tolist() == [0, 0, 0, 6]
    assert boundary_counts(truth, np.zeros_like(truth), 2).tolist() == [0, 6, 0, 0]


def test_boundaries_near_void_are_left_out_on_both_sides():
    truth = columns(0, 0, 0, 0, 1, 1, 1, 1, 255, 255, 255, 255, 2, 2, 2)  # edges at 3, 7 and 11: two to void
    ours = columns(0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3)  # edges at 3, 6 and 9
    assert boundary_counts(ours, truth, 0).tolist() == [6, 12, 6, 6]
    assert boundary_counts(ours, truth, 1).tolist() == [6, 6, 6, 6]


def test_segments_are_equal_whatever_their_numbers():
    labels = np.random.default_rng(0).integers(0, 5, (8, 8))
    assert agreement(np.array([3, 0, 4, 1, 2])[labels], labels) == 1
    assert agreement(np.zeros((4, 4), int), columns(0, 0, 0, 1, height=4)) == 0.75
    assert agreement(columns(0, 0, 0, 1, height=4), np.zeros((4, 4), int)) == 0.75


# --- Tables


def table(counts, embeddings=None) -> Table:
    counts = np.array(counts)
    embeddings = np.zeros((len(counts), 2)) if embeddings is None else np.array(embeddings, float)
    return Table(counts, embeddings, np.zeros((3, 4)))


def test_a_table_counts_pixels_and_leaves_void_out():
    labels, truth = columns(7, 7, 3, 3, height=2), columns(0, 1, 1, 255, height=2)
    made = tabulate(labels, truth, np.zeros((1, 1, 2)), 3)
    assert made.counts.tolist() == [[0, 2, 0], [2, 2, 0]]  # segments in the order of their numbers: 3, 7
    assert made.edges.shape == (3, 4)


def test_an_embedding_is_the_mean_feature_of_a_segments_pixels_void_or_not():
    features = np.array([[[1.0, 0], [2, 0]], [[3, 0], [4, 1]]])  # 2 x 2 cells of 2 x 2 pixels
    labels = np.array([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    made = tabulate(labels, np.full((4, 4), 255), features, 2)
    np.testing.assert_allclose(made.embeddings[0], [(4 * 1 + 1 * 2 + 1 * 3) / 6, 0])
    np.testing.assert_allclose(made.embeddings[1], [(3 * 2 + 3 * 3 + 4 * 4) / 10, 4 / 10], rtol=1e-6)
    assert not made.counts.any()


def test_pooled_features_pass_over_labels_that_are_none():
    labels = np.array([[0, 255], [2, 2]])
    sums, pixels = pooled(labels, np.array([[[1.0], [5]], [[2], [4]]]), 3)
    assert sums.tolist() == [[1], [0], [6]] and pixels.tolist() == [1, 0, 2]


# --- Protocols


def test_an_outcome_is_right_true_and_said_pixels_of_each_class():
    result = scoring.outcome(np.array([[5, 1, 0], [2, 3, 0], [0, 4, 4]]), np.array([0, 1, -1]))
    assert result.tolist() == [[5, 3, 0], [7, 8, 4], [6, 5, 0]]


def test_majority_is_the_best_that_any_assignment_gives():
    counts = np.random.default_rng(0).integers(0, 50, (4, 3))
    best = max(scoring.accuracy(scoring.outcome(counts, np.array(classes))[None]) for classes in np.ndindex(3, 3, 3, 3))
    assert scoring.accuracy(scoring.majority([table(counts)])) == best


def test_hungarian_gives_each_class_to_one_segment_and_what_is_left_to_none():
    tables = [table([[9, 0, 0], [8, 1, 0], [0, 5, 0]])]  # both first segments are of class 0; class 2 is not there
    hits, true, said = scoring.hungarian(tables)[0]
    assert hits.tolist() == [9, 5, 0] and true.tolist() == [17, 6, 0] and said.tolist() == [9, 5, 0]
    assert scoring.miou(scoring.hungarian(tables)) == pytest.approx((9 / 17 + 5 / 6) / 2)


def test_the_traditional_protocol_clusters_over_the_whole_dataset():
    near, far = [0.0, 0], [9.0, 9]
    tables = [table([[9, 1], [0, 10]], [near, far]), table([[1, 8], [6, 0]], [far, near])]
    hits, true, said = scoring.traditional(tables).sum(0)
    assert hits.tolist() == [15, 18] and true.tolist() == [16, 19] and said.tolist() == [16, 19]


def test_the_modified_protocol_takes_the_nearest_known_concept():
    concepts = np.array([[0.0, 0], [4, 0], [np.nan, np.nan]])
    tables = [table([[3, 0, 0], [0, 2, 0], [0, 0, 5]], [[1, 0], [3, 1], [2.5, 0]])]
    hits, _, said = scoring.modified(tables, concepts)[0]
    assert hits.tolist() == [3, 2, 0] and said.tolist() == [3, 7, 0]


@pytest.mark.parametrize("protocol", [scoring.majority, scoring.hungarian, scoring.traditional])
def test_a_perfect_segmentation_is_perfect_under_every_protocol(protocol):
    tables = [table(np.diag([5, 7, 9]), np.eye(3) * 4), table(np.diag([1, 2, 3]), np.eye(3) * 4)]
    outcomes = protocol(tables)
    assert scoring.miou(outcomes) == scoring.accuracy(outcomes) == 1
    concepts = np.eye(3) * 4
    assert scoring.miou(scoring.modified(tables, concepts)) == 1


# --- Scores


def test_miou_is_that_of_the_sum_over_pictures_and_of_the_classes_that_the_truth_has():
    # class 0: 1 of 2; class 1: 1 of 3; class 2: 0 of 1; class 3 is only said
    first, second = np.zeros((2, 3, 4), int)
    first[:, :2] = [[1, 0], [2, 0], [1, 2]]
    second[:, 1:] = [[1, 0, 0], [1, 1, 0], [1, 0, 2]]
    assert scoring.miou(np.stack([first, second])) == pytest.approx((1 / 2 + 1 / 3 + 0) / 3)


def test_boundary_f_adds_up_pictures():
    assert scoring.boundary_f(np.array([[6, 6, 3, 6], [0, 6, 0, 0]])) == pytest.approx(0.5)
    assert scoring.boundary_f(np.zeros((2, 4))) == 0


def test_an_interval_holds_the_difference_and_narrows_with_more_pictures():
    generator = np.random.default_rng(1)

    def outcomes(count, right):
        hits = generator.binomial(100, right, (count, 1))
        return np.stack([hits, np.full_like(hits, 100), hits], axis=1)

    widths = []
    for count in (10, 1000):
        ours, theirs = outcomes(count, 0.7), outcomes(count, 0.6)
        low, high = scoring.interval(scoring.accuracy, ours, theirs)
        assert low < scoring.accuracy(ours) - scoring.accuracy(theirs) < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(4 * (0.7 * 0.3 + 0.6 * 0.4) ** 0.5 / 100_000**0.5, rel=0.15)
    assert widths[1] < 0.3 * widths[0]
    same = outcomes(20, 0.5)
    assert scoring.interval(scoring.miou, same, same) == (0, 0)
    one, other = outcomes(1, 0.7), outcomes(1, 0.2)
    gain = scoring.accuracy(one) - scoring.accuracy(other)
    assert scoring.interval(scoring.accuracy, one, other) == (gain, gain)  # one picture says nothing of others
