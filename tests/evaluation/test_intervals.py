"""Intervals: published values, the equations that define them, and how often they cover the truth, by enumeration."""

import json
import math
from itertools import product
from math import comb
from statistics import fmean

import pytest

from hpa_merge.evaluation.intervals import Z, difference_of_sets, mean_of_sets, tango, wilson


@pytest.mark.parametrize(
    ("successes", "samples", "low", "high"),
    [
        # Newcombe, Stat. Med. 17 (1998) 857-872, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval_is_the_published_one(successes: int, samples: int, low: float, high: float) -> None:
    assert wilson(successes, samples) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson(samples - successes, samples)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def likeliest(above: int, below: int, samples: int, difference: float) -> float:
    """The share of pairs in which only the second is a success, of greatest likelihood given the difference.

    By ternary search over the logarithm of the trinomial likelihood, which is concave; no closed form is used.
    """

    def likelihood(share: float) -> float:
        shares = ((above, share + difference), (below, share), (samples - above - below, 1 - 2 * share - difference))
        return sum(number * math.log(max(of, 1e-300)) for number, of in shares if number)

    low, high = max(0.0, -difference), (1 - difference) / 2
    for _ in range(120):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, second) if likelihood(first) > likelihood(second) else (first, high)
    return (low + high) / 2


def excess(above: int, below: int, samples: int, difference: float) -> float:
    """How far the squared score of a difference is above that of an end of the 95 % interval."""
    variance = 2 * likeliest(above, below, samples, difference) + difference - difference**2
    return (above - below - samples * difference) ** 2 / (samples * variance) - 3.841458820694124


@pytest.mark.parametrize(
    ("above", "below", "samples"),
    [(1, 7, 21), (6, 16, 161), (3, 1, 9), (5, 5, 40), (2, 0, 11), (32, 0, 32), (90, 3, 100), (0, 1, 400)],
)
def test_tangos_interval_ends_where_the_score_is_that_of_its_confidence(above: int, below: int, samples: int) -> None:
    """Tango, Stat. Med. 17 (1998) 891-908: the score test with the nuisance share at its greatest likelihood."""
    low, high = tango(above, below, samples)
    share, step = (above - below) / samples, 1e-5
    assert low < share <= high
    for end, inward in ((low, 1), (high, -1)):
        if abs(end) < 1:
            assert (
                excess(above, below, samples, end - inward * step)
                > 0
                > excess(above, below, samples, end + inward * step)
            )
    assert tango(below, above, samples) == pytest.approx((-high, -low), abs=1e-9)


def test_tangos_interval_of_pairs_that_do_not_differ() -> None:
    """No pair differs: the likeliest share is 0, or ``-difference``, so that the ends are ±z²/(n + z²)."""
    for samples in (1, 8, 32, 1000):
        end = Z * Z / (samples + Z * Z)
        assert tango(0, 0, samples) == pytest.approx((-end, end), abs=1e-9)


def test_tangos_interval_excludes_zero_exactly_where_mcnemars_test_rejects() -> None:
    samples = 18
    for above, below in product(range(samples + 1), repeat=2):
        if 0 < above + below <= samples:
            low, high = tango(above, below, samples)
            assert (low > 0 or high < 0) == ((above - below) ** 2 / (above + below) > Z * Z), (above, below)


@pytest.mark.parametrize("samples", [8, 32, 100])
def test_wilsons_interval_covers_as_often_as_it_says(samples: int) -> None:
    intervals = [wilson(k, samples) for k in range(samples + 1)]
    coverages = []
    for share in (number / 200 for number in range(1, 200)):
        mass = (comb(samples, k) * share**k * (1 - share) ** (samples - k) for k in range(samples + 1))
        coverages.append(sum(m for m, (low, high) in zip(mass, intervals, strict=True) if low <= share <= high))
    assert 0.945 < fmean(coverages) < 0.97
    assert min(coverages) > 0.83  # Wilson's minimum, just outside of the interval of one success


def test_tangos_interval_covers_as_often_as_it_says() -> None:
    samples = 20
    outcomes = [(b, c) for b in range(samples + 1) for c in range(samples + 1 - b)]
    intervals = {each: tango(*each, samples) for each in outcomes}
    coverages = []
    for p, q in product((0.01, 0.05, 0.1, 0.2, 0.35, 0.5), repeat=2):
        if p + q > 1:
            continue
        covered = 0.0
        for b, c in outcomes:
            low, high = intervals[b, c]
            if low <= p - q <= high:
                ways = comb(samples, b) * comb(samples - b, c)
                covered += ways * p**b * q**c * (1 - p - q) ** (samples - b - c)
        coverages.append(covered)
    assert 0.945 < fmean(coverages) < 0.98
    assert min(coverages) > 0.9


def test_the_mean_of_two_shares_covers_as_often_as_it_says() -> None:
    sizes = (10, 24)
    figures = {
        (a, b): mean_of_sets([[1.0] * a + [0.0] * (sizes[0] - a), [1.0] * b + [0.0] * (sizes[1] - b)])
        for a, b in product(range(sizes[0] + 1), range(sizes[1] + 1))
    }
    coverages = []
    for p, q in product((0.02, 0.1, 0.3, 0.5, 0.8, 0.95), repeat=2):
        covered = sum(
            comb(sizes[0], a) * p**a * (1 - p) ** (sizes[0] - a) * comb(sizes[1], b) * q**b * (1 - q) ** (sizes[1] - b)
            for (a, b), figure in figures.items()
            if figure.low <= 50 * (p + q) <= figure.high
        )
        coverages.append(covered)
    assert 0.94 < fmean(coverages) < 0.98
    assert min(coverages) > 0.9


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 0.7])
def test_equal_scores_have_an_interval_with_width(value: float) -> None:
    """No attack of 7 succeeded, or every answer scored 0.7: this does not show that it is always so."""
    figure = mean_of_sets([[value] * 7])
    assert figure.low <= figure.value <= figure.high
    assert figure.high - figure.low > 20
    assert figure.interval == "score"
    assert json.dumps([figure.low, figure.high])  # no NaN, no infinity: floats that JSON has


def test_other_scores_have_the_bootstraps_interval() -> None:
    uneven = [number / 97 for number in range(97)]
    figure = mean_of_sets([uneven])
    assert figure.interval == "bootstrap"
    # Uniform scores: the mean's standard error is √(1/12/97).
    half = Z * (1 / 12 / 97) ** 0.5
    assert (figure.low, figure.high) == pytest.approx((figure.value - 100 * half, figure.value + 100 * half), abs=0.6)
    assert mean_of_sets([uneven]) == figure != mean_of_sets([uneven], seed=1)
    mixed = mean_of_sets([uneven, [0.0, 1.0] * 30])
    assert mixed.interval == "bootstrap"
    assert mixed.low < 50 < mixed.high


def test_a_share_does_not_depend_on_the_seed() -> None:
    scores = [1.0] * 10 + [0.0] * 22
    assert mean_of_sets([scores], seed=1) == mean_of_sets([scores])
    assert (mean_of_sets([scores]).low, mean_of_sets([scores]).high) == pytest.approx(
        tuple(100 * end for end in wilson(10, 32))
    )


def test_the_mean_of_several_sets_counts_each_the_same() -> None:
    figure = mean_of_sets([[1.0] * 10, [0.0] * 90])
    assert (figure.value, figure.samples) == (50, 100)
    assert 33 < figure.low < 50 < figure.high < 53  # the small set's interval is one-sided, and so is theirs
    several = mean_of_sets([[0.1, 0.9, 0.4], [0.3, 0.2]])
    assert several.value == pytest.approx(100 * fmean([fmean([0.1, 0.9, 0.4]), 0.25]))
    assert several.low < several.value < several.high


def test_a_difference_is_of_pairs() -> None:
    ours, theirs = [1.0, 1.0, 1.0, 0.0] * 8, [1.0, 1.0, 0.0, 0.0] * 8
    found = difference_of_sets([ours], [theirs], "old", "safety", "s")
    assert (found.than, found.kind, found.name, found.value, found.samples) == ("old", "safety", "s", 25, 32)
    assert (found.low, found.high) == pytest.approx(tuple(100 * end for end in tango(8, 0, 32)))
    # The same shares of other prompts say less: the pairs are what makes it narrow.
    unpaired = difference_of_sets([ours], [sorted(theirs)], "old", "safety", "s")
    assert unpaired.value == 25
    assert unpaired.high - unpaired.low > 1.3 * (found.high - found.low)
    same = difference_of_sets([[0.25, 0.5] * 8], [[0.25, 0.5] * 8], "old", "tasks", "r")
    assert (same.value, same.interval) == (0, "score")
    assert same.low < 0 < same.high
    graded = difference_of_sets([[0.25, 0.5, 0.9, 0.1]], [[0.2, 0.3, 0.9, 0.4]], "old", "tasks")
    assert graded.interval == "bootstrap"
    assert graded.low < graded.value < graded.high
    several = difference_of_sets([ours, ours], [theirs, ours], "old", "safety")
    assert several.value == 12.5
    assert several.high - several.low < found.high - found.low
