"""The paper's metrics against matrices that were worked out by hand."""

import math

import pytest

from hpa_merge.evaluation.metrics import (
    average_performance,
    backward_transfer,
    continual_metrics,
    just_learned,
    mean_attack_success,
    rise_in_attack_success,
)

PERFORMANCE = [
    [80.0, 1.0, 2.0],  # the tasks to come are measured too, and must not count
    [60.0, 90.0, 3.0],
    [50.0, 84.0, 70.0],
]
ATTACKS = [[10.0, 20.0, 30.0], [40.0, 40.0, 40.0], [30.0, 60.0, 90.0]]
ALIGNED = [1.0, 2.0, 3.0]


def test_the_metrics_of_three_steps() -> None:
    found = continual_metrics(PERFORMANCE, ATTACKS, ALIGNED)
    assert found.steps == 3
    assert found.ap == pytest.approx((50 + 84 + 70) / 3)
    assert found.bwt == pytest.approx(((50 - 80) + (84 - 90)) / 2) == pytest.approx(-18)
    assert found.just_learned == pytest.approx((80 + 90 + 70) / 3)
    assert found.masr == pytest.approx(60)
    assert found.dasr == pytest.approx(58)
    assert found.ap_over_steps == pytest.approx((80 + 75 + 68) / 3)
    assert found.masr_over_steps == pytest.approx((20 + 40 + 60) / 3)
    assert found.dasr_over_steps == pytest.approx(40 - 2)


def test_the_published_rows_are_consistent_with_the_definitions() -> None:
    """The paper's DASR is its MASR less the aligned model's, 2.86: 42.56 and 39.70, 4.75 and 1.89, 7.22 and 4.36."""
    for masr, dasr in ((42.56, 39.70), (28.29, 25.43), (4.75, 1.89), (24.26, 21.40), (7.22, 4.36)):
        assert rise_in_attack_success([[masr]], [2.86]) == pytest.approx(dasr)


def test_a_row_may_end_at_the_task_it_teaches() -> None:
    ragged = [row[: step + 1] for step, row in enumerate(PERFORMANCE)]
    assert continual_metrics(ragged, ATTACKS, ALIGNED) == continual_metrics(PERFORMANCE, ATTACKS, ALIGNED)


def test_one_step_has_no_backward_transfer() -> None:
    found = continual_metrics([[80.0]], [[10.0]], [4.0])
    assert (found.ap, found.bwt, found.just_learned, found.masr, found.dasr) == (80, None, 80, 10, 6)
    with pytest.raises(ValueError, match="two steps or more"):
        backward_transfer([[80.0]])


def test_a_method_that_learns_nothing_forgets_nothing() -> None:
    """Why the accuracy right after learning stands beside BWT."""
    refuses = [[0.0], [0.0, 0.0], [0.0, 0.0, 0.0]]
    assert backward_transfer(refuses) == 0 > backward_transfer(PERFORMANCE)
    assert just_learned(refuses) == 0 < just_learned(PERFORMANCE)


@pytest.mark.parametrize(
    ("performance", "attacks", "aligned", "sentence"),
    [
        ([], [], ALIGNED, "one step or more"),
        ([[1.0], [1.0]], ATTACKS[:2], ALIGNED, "step 2 has performances on 1 tasks, and 2 were learned"),
        (PERFORMANCE, ATTACKS[:2], ALIGNED, "3 steps have performances and 2 have attack success rates"),
        (PERFORMANCE, ATTACKS, ALIGNED[:2], "other safety sets"),
        ([[math.nan]], [[1.0]], [1.0], "missing"),
        ([[1.0]], [[math.inf]], [1.0], "missing"),
        ([[1.0]], [[]], [], "missing"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    performance: list[list[float]], attacks: list[list[float]], aligned: list[float], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        continual_metrics(performance, attacks, aligned)


def test_a_figure_of_a_task_to_come_may_be_missing() -> None:
    assert average_performance([[80.0, math.nan]]) == 80
    assert mean_attack_success([[math.nan], [5.0]]) == 5
