"""The studies of the number of segments and of pairs of pictures."""

import numpy as np
import pytest

from emerdiff.settings import FINE
from emerdiff.studies import pairs
from emerdiff.studies.granularity import FIXED, Cut, compare, held_out, numbers


def cut_of(best: int, scale: float = 1) -> Cut:
    """A picture that is best in so many segments, of which all merges beyond are cheap."""
    n = np.arange(FINE + 1)
    heights = np.where(n <= best, 2 - n / 100, 0.1 - n / 1e6) * scale
    return Cut(1 - abs(n - best) / FINE, np.r_[np.inf, np.inf, heights[2:]], -abs(n - best) / 1.0, scale)


def test_a_rule_that_sees_what_each_picture_needs_reaches_the_ceiling_and_a_fixed_number_does_not():
    sets = [[cut_of(best) for best in (4, 9, 14, 20) * 2], [cut_of(best) for best in (6, 12) * 4]]
    rows = compare(sets)
    for rule in ("height", "height by the picture's variation"):
        assert all(row["score"] == pytest.approx(row["ceiling"]) and row["gain"][1] > 0 for row in rows[rule])
    assert all(row["score"] < 0.95 for row in rows[FIXED]) and [row["gain"][0] for row in rows[FIXED]] == [0, 0]


def test_a_rule_is_chosen_on_the_other_half():
    """Even pictures are best in 5 segments and odd ones in 9: each half is scored by what suits the other."""
    (scores,) = held_out([[cut_of(5 + 4 * (i % 2)) for i in range(8)]], FIXED)
    np.testing.assert_allclose(scores, 1 - 4 / FINE)


def test_only_absolute_heights_tell_a_plain_picture_from_a_rich_one():
    plain, rich = (numbers(cut_of(10, scale)) for scale in (0.5, 1))
    same = [rule for rule in plain if np.array_equal(plain[rule], rich[rule])]
    assert "height" not in same and {"height by the picture's variation", "height by the largest"} <= {*same}


HERE, THERE = np.diag([60, 40]), np.diag([30, 70])  # pixels of two segments by class
ONE = np.array([[30, 70], [0, 0]])  # 0.18 of all pairs of pixels are of one segment and class, 0.46 of one class
CASES = [(THERE, 1, 1), (THERE[::-1], 0, 0), (ONE, 2 * 0.18 / (0.46 + 0.6), (0.3 + 0) / 2)]


@pytest.mark.parametrize("there, of_pairs, carried", CASES, ids=["the same", "exchanged", "one for all"])
def test_scores_of_pairs(there, of_pairs, carried):
    assert pairs.scores(HERE, there) == pytest.approx((of_pairs, carried))
