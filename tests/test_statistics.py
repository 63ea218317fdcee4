import itertools
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wsolbench.statistics import BCA_COVERS, Interval, Paired, bca_covers, holm, mcnemar, paired, standard_error

INTEGERS = st.lists(st.integers(-20, 20), min_size=1, max_size=8)


def sign_flip(differences: list[int]) -> Fraction:
    """Share of all sign changes whose sum is at least as far from 0."""
    signs = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(flips, differences, strict=True))) for flips in signs]
    return Fraction(sum(total >= abs(sum(differences)) for total in sums), len(signs))


def test_a_difference_over_three_seeds_by_hand() -> None:
    found = paired([50, 52, 57], [48, 51, 51])  # differences 2, 1, 6

    assert (found.n, found.mean) == (3, 3)
    assert found.sd == pytest.approx(math.sqrt((1 + 4 + 9) / 2))
    assert found.p == 0.25  # all three positive: 2 of 8 sign changes
    half = 4.3027 * math.sqrt(7 / 3)  # t of 2 degrees of freedom
    assert found.interval == pytest.approx((3 - half, 3 + half), abs=1e-3)


@given(INTEGERS)
@settings(deadline=None, max_examples=50)
def test_p_is_the_share_of_all_sign_changes(differences: list[int]) -> None:
    found = paired([float(d) for d in differences], [0.0] * len(differences))

    assert found.p == pytest.approx(float(sign_flip(differences)))


HITS = st.tuples(st.integers(1000, 50_000), INTEGERS)


@given(HITS)
@settings(deadline=None, max_examples=50)
def test_sums_that_are_equal_but_for_rounding_count_as_equal(hits: tuple[int, list[int]]) -> None:
    images, differences = hits
    theirs = [400 + 7 * seed for seed in range(len(differences))]

    found = paired(
        [100 * (own + more) / images for own, more in zip(theirs, differences, strict=True)],
        [100 * own / images for own in theirs],
    )

    assert found.p == pytest.approx(float(sign_flip(differences)))


def test_accuracies_of_1090_images_that_differ_by_a_few_hits() -> None:
    theirs, differences = [400, 400, 400, 400], [-2, -4, 3, 6]

    found = paired(
        [100 * (own + more) / 1090 for own, more in zip(theirs, differences, strict=True)],
        [100 * own / 1090 for own in theirs],
    )

    assert found.p == 14 / 16 == sign_flip(differences)  # all but the two whose sums are 1 and -1


@pytest.mark.parametrize("count", [16, 20, 21, 60])
def test_p_of_many_pairs_is_exact_or_close(count: int) -> None:
    differences = [(-1) ** (index % 3) * (1 + index % 5) for index in range(count)]
    ways = Counter({0: 1})  # to reach each sum
    for each in differences:
        ways = Counter(
            {sum_: ways[sum_ - each] + ways[sum_ + each] for old in ways for sum_ in (old - each, old + each)}
        )
    far = sum(number for sum_, number in ways.items() if abs(sum_) >= abs(sum(differences)))

    found = paired([each / 10 for each in differences], [0.0] * count)

    assert found.p == pytest.approx(far / 2**count, abs=1e-12 if count <= 20 else 0.01)


@given(INTEGERS)
@settings(deadline=None, max_examples=20)
def test_fewer_than_six_pairs_are_never_significant(differences: list[int]) -> None:
    found = paired([float(d) for d in differences], [0.0] * len(differences))

    assert not (found.n < 6 and found.significant(0.0))
    assert found.n < 6 or found.significant(0.049)
    assert not found.significant(0.05)


def test_six_equal_signs_are_significant_and_five_are_not() -> None:
    six, five = paired([1, 2, 3, 4, 5, 6], [0] * 6), paired([1, 2, 3, 4, 5], [0] * 5)

    assert (six.p, six.significant(six.p)) == (2 / 64, True)
    assert (five.p, five.significant(five.p)) == (2 / 32, False)


def test_no_difference_at_all() -> None:
    found = paired([1.5, 2.5], [1.5, 2.5])

    assert (found.mean, found.sd, found.interval, found.bca, found.p) == (0, 0, None, None, 1)


def test_one_pair_has_no_spread_and_no_interval() -> None:
    found = paired([2.0], [1.0])

    assert (found.n, found.mean, found.sd, found.interval, found.bca, found.p) == (1, 1, None, None, None, 1)


def test_the_bca_interval_is_the_same_every_time() -> None:
    one, again = (paired([5, 7, 8, 4], [1, 2, 2, 2]) for _ in range(2))

    assert one.bca is not None
    assert one.bca == again.bca


def test_both_intervals_of_many_symmetric_differences_are_those_of_a_normal_mean() -> None:
    differences = np.linspace(-1, 1, 60) + 3

    found = paired(differences.tolist(), [0.0] * 60)

    half = 1.96 * differences.std(ddof=1) / math.sqrt(60)
    assert found.interval == pytest.approx((3 - half, 3 + half), abs=0.01)
    assert found.bca == pytest.approx((3 - half, 3 + half), abs=0.02)


def coverage(pairs: int, of: Callable[[Paired], Interval | None]) -> float:
    """Of the intervals of 500 draws of normal differences, how many hold their mean, in %."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn(500, pairs, generator=random, dtype=torch.float64).tolist()
    intervals = [of(Paired(tuple(row))) for row in drawn]
    return 100 * sum(ends is not None and ends[0] <= 0 <= ends[1] for ends in intervals) / 500


@pytest.mark.parametrize("pairs", [2, 3, 5, 10])
def test_the_interval_holds_the_mean_of_few_normal_differences_as_often_as_it_says(pairs: int) -> None:
    assert coverage(pairs, lambda found: found.interval) == pytest.approx(95, abs=3)  # 3 standard errors


@pytest.mark.parametrize("pairs", [2, 3, 6])
def test_the_bca_interval_holds_it_as_rarely_as_is_told(pairs: int) -> None:
    assert coverage(pairs, lambda found: found.bca) == pytest.approx(bca_covers(pairs), abs=6)


def test_of_pairs_between_those_simulated_the_fewer_are_told() -> None:
    assert [bca_covers(pairs) for pairs in (1, 2, 7, 8, 100)] == [BCA_COVERS[pairs] for pairs in (2, 2, 6, 8, 30)]


def test_holm_by_hand() -> None:
    # Sorted: .01 x 4, .02 x 3, .03 x 2 raised to the .06 before it, .2 x 1.
    assert holm([0.03, 0.01, 0.2, 0.02]) == pytest.approx([0.06, 0.04, 0.2, 0.06])


def test_holm_ends_at_one() -> None:
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [
        (0, 0, 1),
        (5, 0, 2 / 32),
        (1, 3, 2 * (1 + 4) / 16),  # C(4, 0) + C(4, 1) of 16, on both sides
        (3, 3, 1),
    ],
)
def test_mcnemar_by_hand(ours: int, theirs: int, p: float) -> None:
    first = np.array([True] * ours + [False] * theirs + [True, True, False])
    second = np.array([False] * ours + [True] * theirs + [True, True, False])

    found = mcnemar(first, second)

    assert (found.ours, found.theirs, found.both, found.neither) == (ours, theirs, 2, 1)
    assert found.p == pytest.approx(p)


@pytest.mark.parametrize(("images", "points"), [(5794, 0.66), (50_000, 0.22), (10_000, 0.50)])
def test_the_standard_error_of_half_the_images(images: int, points: float) -> None:
    assert standard_error(50, images) == pytest.approx(points, abs=0.005)


def test_the_standard_error_of_all_images_is_nothing() -> None:
    assert standard_error(100, 10) == 0
