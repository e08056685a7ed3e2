"""The reference's mathematics against cases computed by hand, and its near ties against blurred scores."""

import random
from fractions import Fraction

import pytest
import torch
from reference import Settings, choose_columns, column_budgets, curvature, merge_linear, same_columns


def test_curvature_by_hand():
    # Tokens (1, 0) and (1, 2): Σ x xᵀ = [[2, 2], [2, 4]], 2/N = 1, mean of the diagonal 3, λ = 0.01 · 3 = 0.03.
    expected = torch.tensor([[2.03, 2.0], [2.0, 4.03]], dtype=torch.float64)
    together = curvature([torch.tensor([[1.0, 0.0], [1.0, 2.0]])], 0.01)
    in_two_visits = curvature([torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]])], 0.01)
    torch.testing.assert_close(together, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(in_two_visits, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("c", "depth", "share", "n_restored", "n_focus"),
    [
        (64, (0, 4), Fraction(15), 10, 19),  # 9.6, 19.2
        (64, (4, 4), Fraction(5), 3, 6),  # an untied head: 3.2, 6.4
        (112, (2, 3), Fraction(25, 3), 9, 19),  # 15 − ⅔·10 = 8⅓ percent: 9.33, 18.67
        (30, (1, 3), Fraction(35, 3), 4, 7),  # 3.5 exactly: up; 7
        (10, (0, 1), Fraction(15), 2, 3),  # 1.5 exactly: up; 3
        (2, (0, 1), Fraction(15), 0, 1),  # 0.3: none; 0.6: one
    ],
)
def test_column_budgets(c, depth, share, n_restored, n_focus):
    assert column_budgets(c, depth, Settings()) == (share, n_restored, n_focus)


def test_column_budgets_are_exact_for_decimal_options():
    # 12.3 percent of 500 is 61.5 exactly: up to 62. In binary floating point 12.3 is a little more than 12.3.
    assert column_budgets(500, (0, 1), Settings(p_max=12.3))[1] == 62
    assert column_budgets(3, (0, 1), Settings(p_max=90, focus_ratio=2))[2] == 3  # never more than there are


def test_two_columns_by_hand():
    # OLD = [[1, 0], [0, 1]], NEW = [[3, 1], [0, 2]]: ΔW = [[2, 1], [0, 1]], e = (4/2, 2/2) = (2, 1).
    # ⟨ΔW, OLD⟩ = 2 + 1 = 3, ‖OLD‖² = 2: κ = 1.5. NEW − 1.5·OLD = [[1.5, 1], [0, 0.5]].
    # Undamped: safety tokens (1, 0), (0, 2): H_s = diag(1, 4), inverse (1, ¼), ε̄ = (2, 4);
    #           task tokens (2, 0), (0, 1): H_t = diag(4, 1), inverse (¼, 1), ζ̄ = (8, 1).
    # m = ½(log ¼ + log 4) = 0: α = 0.6. p_max = p_min = 50: n_restored = 1, n_focus = 1 · 1 with a ratio of 1.
    # S = {1}, T = {0}, O = ∅: M = {1}. Column 1 is restored to (0, 1).
    old, new = torch.eye(2), torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    safety, task = [torch.tensor([[1.0, 0.0], [0.0, 2.0]])], [torch.tensor([[2.0, 0.0], [0.0, 1.0]])]
    settings = Settings(p_max=50, p_min=50, focus_ratio=1, damping=0)
    result = merge_linear(old, new, safety, task, (0, 1), settings)
    assert result.status == "merged"
    assert (result.share, result.n_restored, result.n_focus) == (50, 1, 1)
    assert result.energy.tolist() == [2, 1]
    assert result.inverse_safety.tolist() == [1, 0.25]
    assert result.inverse_task.tolist() == [0.25, 1]
    assert result.epsilon.tolist() == [2, 4]
    assert result.zeta.tolist() == [8, 1]
    assert result.alpha == pytest.approx(0.6, abs=1e-15)
    assert result.kappa == 1.5
    assert (result.choice.focus_safety, result.choice.focus_task, result.restored) == ({1}, {0}, {1})
    assert result.weight.tolist() == [[1.5, 0.0], [0.0, 1.0]]
    assert result.margin == pytest.approx(0.5)  # S: 4 against 2; T: 8 against 1

    transposed = merge_linear(old.T, new.T, safety, task, (0, 1), settings, input_axis=0)
    assert transposed.weight.tolist() == [[1.5, 0.0], [0.0, 1.0]]
    plain = merge_linear(old, new, safety, task, (0, 1), Settings(**{**vars(settings), "orthogonal": False}))
    assert plain.weight.tolist() == [[3.0, 0.0], [0.0, 1.0]]
    # The product turns the scores round: ε̄ = (2·1, 1·¼), ζ̄ = (2·¼, 1·1), so S = {0}.
    product = merge_linear(old, new, safety, task, (0, 1), Settings(**{**vars(settings), "saliency": "product"}))
    assert (product.epsilon.tolist(), product.zeta.tolist()) == ([2, 0.25], [0.5, 1])
    assert product.restored == {0}


def test_balance_by_hand():
    # Safety tokens (1, 0), (0, 1): H_s = (2/2)·I = I; task tokens three times as large: H_t = 9·I.
    # m = log(1/9) − log(1) = −2 log 3; tanh m = (1/81 − 1)/(1/81 + 1) = −80/82; α = 0.4 + 0.4·(2/82)/2.
    unit = torch.eye(2)
    result = merge_linear(unit, 2 * unit, [unit], [3 * unit], (0, 1), Settings(damping=0))
    assert result.alpha == pytest.approx(0.4 + 0.4 / 82, rel=1e-14)
    turned = merge_linear(unit, 2 * unit, [unit], [3 * unit], (0, 1), Settings(damping=0, saliency="product"))
    assert turned.alpha == pytest.approx(0.8 - 0.4 / 82, rel=1e-14)


EPSILON = [9.0, 8.0, 7.0, 6.0, 5.0, 1.0]
ZETA = [9.0, 1.0, 8.0, 7.0, 2.0, 10.0]


@pytest.mark.parametrize(
    ("selection", "n_restored", "restored"),
    [
        # n_focus = 4: S = {0, 1, 2, 3}, T = {5, 0, 2, 3}, O = {0, 2, 3}, S∖O = {1}.
        # α = ½: φ = (4.5, 7.5, 3, 2.5, 4, −4).
        ("balanced", 0, set()),
        ("balanced", 1, {1}),
        ("balanced", 3, {1, 0, 2}),
        ("balanced", 9, {1, 0, 2, 3}),  # no more than S
        ("safety", 2, {0, 1}),
        ("safety", 5, {0, 1, 2, 3, 4}),
        ("shared", 2, {0, 2}),
        ("shared", 5, {0, 2, 3}),  # no more than O
    ],
)
def test_selections_by_hand(selection, n_restored, restored):
    choice = choose_columns(EPSILON, ZETA, 0.5, n_restored, 4, selection)
    assert choice.phi == (4.5, 7.5, 3.0, 2.5, 4.0, -4.0)
    assert choice.focus_safety == {0, 1, 2, 3}
    assert choice.focus_task == {0, 2, 3, 5}
    assert choice.restored == restored


def test_enough_columns_of_safety_alone_go_by_epsilon():
    # n_focus = 3: S = {0, 1, 2}, T = {3, 4, 5}: nothing shared, the two largest ε̄ of S.
    choice = choose_columns([3.0, 5.0, 4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 2.0, 3.0], 0.5, 2, 3, "balanced")
    assert choice.restored == {1, 2}
    assert choice.decided_by == "epsilon"


def test_ties_go_to_the_lower_index():
    # All alike: S = T = O = {0, 1}, and of them φ is alike too.
    assert choose_columns([1.0] * 4, [1.0] * 4, 0.5, 1, 2, "balanced").restored == {0}
    # Unchanged columns score zero; they fill the focus sets up from below and still lose to no one but by index.
    choice = choose_columns([0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0], 0.5, 2, 2, "balanced")
    assert choice.focus_safety == choice.focus_task == {0, 2}
    assert choice.restored == {0, 2}
    assert choice.margin == 1.0  # column 2 against a zero; zeros among themselves decide nothing


def _result(epsilon: list[float], zeta: list[float], n_restored: int, n_focus: int, selection: str = "balanced"):
    """A merged linear in which the scores, and what follows from them, are exchanged for the given ones (α = 0.6)."""
    choice = choose_columns(epsilon, zeta, 0.6, n_restored, n_focus, selection)
    unit = torch.eye(len(epsilon))
    result = merge_linear(unit, 2 * unit, [unit], [unit], (0, 1), Settings(selection=selection))
    scores = {key: torch.tensor(x, dtype=torch.float64) for key, x in (("epsilon", epsilon), ("zeta", zeta))}
    replaced = {
        "choice": choice,
        "restored": choice.restored,
        "n_restored": n_restored,
        "n_focus": n_focus,
        "alpha": 0.6,
    }
    return type(result)(**{**vars(result), **scores, **replaced})


def test_same_columns_accepts_near_ties_only():
    # S = {0, 1, 2}, T = {3, 4, 5}: M by ε̄ of S.
    zeta = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]
    far = _result([5.0, 4.0, 3.0, 0.1, 0.1, 0.1], zeta, 1, 3)
    assert same_columns(far, {0}, 1e-4)
    assert not same_columns(far, {1}, 1e-4)
    assert not same_columns(far, {0, 1}, 1e-4)
    assert not same_columns(far, set(), 1e-4)
    assert not same_columns(far, {17}, 1e-4)
    near = _result([5.0, 4.9999, 3.0, 0.1, 0.1, 0.1], zeta, 1, 3)
    assert same_columns(near, {1}, 1e-4)
    assert not same_columns(near, {1}, 1e-5)
    assert not same_columns(near, {2}, 1e-4)


def test_same_columns_follows_a_near_tie_through():
    # n_focus = 2. S = {0, 1}. T = {4, 5}, but column 0 nearly belongs to T in the place of 4. n_restored = 1.
    # As it is: S∖O = {0, 1}: M = {0}. With 0 in T: S∖O = {1}: M = {1}, though ε̄ of 0 and 1 are far apart.
    result = _result([9.0, 5.0, 1.0, 1.0, 0.5, 0.5], [2.99999, 0.0, 0.0, 0.0, 3.0, 7.0], 1, 2)
    assert result.restored == {0}
    assert same_columns(result, {1}, 1e-4)
    assert not same_columns(result, {1}, 1e-7)
    assert not same_columns(result, {2}, 1e-4)
    assert result.margin == pytest.approx(1e-5 / 3, rel=1e-3)


def test_same_columns_measures_phi_by_what_it_is_a_difference_of():
    # S = T = O = {0, 1}. φ = (10 − 0.6·16, 10.001 − 0.6·16.001) = (0.4, 0.4004): a relative 1e-3 of φ, but of scores
    # near 20 a relative 2e-5.
    result = _result([10.0, 10.001, 0.1], [16.0, 16.001, 0.1], 1, 2)
    assert result.restored == {1}
    assert same_columns(result, {0}, 1e-4)
    assert not same_columns(result, {0}, 1e-6)


def test_zeros_are_no_near_tie():
    result = _result([2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0], 2, 2, "safety")
    assert result.restored == {0, 1}
    assert not same_columns(result, {0, 2}, 1e-2)


@pytest.mark.parametrize("selection", ["balanced", "safety", "shared"])
def test_same_columns_accepts_whatever_blurred_scores_choose(selection):
    # Scores on a coarse grid, so that near ties abound; every score then off by up to 1e-3 of itself.
    draw = random.Random(0)
    differing = 0
    for _ in range(300):
        epsilon, zeta = ([draw.randrange(1, 12) * (1 + 1e-5 * draw.random()) for _ in range(12)] for _ in range(2))
        n_restored = draw.randrange(1, 5)
        result = _result(epsilon, zeta, n_restored, 2 * n_restored, selection)
        blurred = [[x * (1 + 1e-3 * draw.uniform(-1, 1)) for x in scores] for scores in (epsilon, zeta)]
        restored = choose_columns(*blurred, result.alpha, n_restored, 2 * n_restored, selection).restored
        assert same_columns(result, restored, 2.01e-3)
        differing += restored != result.restored
        # A restored column against one far below every line is never a near tie.
        worst = min(range(12), key=lambda column: epsilon[column])
        if worst not in result.choice.focus_safety and epsilon[worst] < 0.9 * min(
            epsilon[column] for column in result.choice.focus_safety
        ):
            assert not same_columns(result, {worst, *sorted(result.restored)[1:]}, 2.01e-3)
    assert differing > 20


def test_unchanged_and_uncalibrated():
    unit, tokens, none = torch.eye(2), [torch.eye(2)], []
    assert merge_linear(unit, unit, tokens, tokens, (0, 1), Settings()).status == "unchanged"
    assert merge_linear(unit, unit, none, none, (0, 1), Settings(uncalibrated="error")).status == "unchanged"
    for safety, task in ((none, tokens), (tokens, none)):
        new = merge_linear(unit, 2 * unit, safety, task, (0, 1), Settings())
        assert (new.status, new.weight.tolist()) == ("uncalibrated", [[2, 0], [0, 2]])
        old = merge_linear(unit, 2 * unit, safety, task, (0, 1), Settings(uncalibrated="old"))
        assert (old.status, old.weight.tolist()) == ("uncalibrated", [[1, 0], [0, 1]])
        with pytest.raises(ValueError, match="no calibration token reaches it in both sets"):
            merge_linear(unit, 2 * unit, safety, task, (0, 1), Settings(uncalibrated="error"))


def test_an_old_weight_of_zeros_has_no_component_to_remove():
    result = merge_linear(torch.zeros(2, 2), torch.eye(2), [torch.eye(2)], [torch.eye(2)], (0, 1), Settings())
    assert result.kappa == 0
    assert result.weight.tolist() == [[1, 0], [0, 1]]
