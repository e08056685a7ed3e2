"""Energy, κ and the fused weight: exact where the method is exact, and against float64 elsewhere."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpa_merge.core import adjustment, all_finite, fuse, measure_update, squared_distance, squared_norm

deterministic = settings(max_examples=100, deadline=None, derandomize=True)

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EPS = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
SPECIAL = (-0.0, 0.0, 1.0, -65504.0, 2.0**-14)
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@st.composite
def weight_pairs(draw: st.DrawFn, same_dtype: bool = False) -> tuple[Tensor, Tensor]:
    """OLD and NEW ``[r, c]``, with a few special numbers among them, either of them perhaps a transposed view."""
    r, c = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    dtype = draw(st.sampled_from(DTYPES))
    weights = []
    for _ in range(2):
        weight = torch.randn(r, c, generator=generator)
        special = draw(st.lists(st.sampled_from(SPECIAL), max_size=3))
        weight.flatten()[: len(special)] = torch.tensor(special)[: r * c]
        weight = weight.to(dtype if same_dtype else draw(st.sampled_from(DTYPES)))
        weights.append(weight.T.contiguous().T if draw(st.booleans()) else weight)
    return weights[0], weights[1]


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal with the sign of zero."""
    bits = BITS[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))


def all_of(weight: Tensor, restored: bool) -> Tensor:
    return torch.full((weight.shape[1],), restored)


def inner(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b.double()).sum())


# --- the update ---


def test_update_by_hand():
    old, new = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 2.0]]), torch.tensor([[2.0, 2.0, 3.0], [0.0, 1.0, 1.0]])
    update = measure_update(old, new)  # ΔW = 1 0 3, 0 2 −1; ‖W_old‖² = 10; ⟨ΔW, W_old⟩ = 1 − 2 − 2
    assert update.energy.tolist() == [1 / 2, 4 / 2, 10 / 2]
    assert (update.kappa, update.change, update.old_norm) == (-0.3, 15.0, 10.0)


@deterministic
@given(weight_pairs())
def test_update_is_its_definition_in_float64(pair: tuple[Tensor, Tensor]):
    old, new = pair
    delta = new.double() - old.double()
    update = measure_update(old, new)
    assert update.energy.dtype == torch.float64
    torch.testing.assert_close(update.energy, delta.square().mean(dim=0), rtol=1e-12, atol=0)
    assert update.change == pytest.approx(float(delta.square().sum()), rel=1e-12)
    assert update.old_norm == pytest.approx(inner(old, old), rel=1e-12)
    expected = inner(delta, old) / inner(old, old) if inner(old, old) else 0.0
    size = (inner(delta, delta) / inner(old, old)) ** 0.5 if inner(old, old) else 0.0  # what κ is a cancellation of
    assert update.kappa == pytest.approx(expected, rel=1e-12, abs=1e-12 * size)


@deterministic
@given(weight_pairs())
def test_no_update(pair: tuple[Tensor, Tensor]):
    update = measure_update(pair[0], pair[0].clone())
    assert not update.energy.any()
    assert (update.kappa, update.change) == (0.0, 0.0)


@deterministic
@given(weight_pairs())
def test_nothing_lies_along_a_weight_of_zeros(pair: tuple[Tensor, Tensor]):
    old, new = torch.zeros_like(pair[0]), pair[1]
    update = measure_update(old, new)
    assert (update.kappa, update.old_norm) == (0.0, 0.0)
    assert same_bits(fuse(old, new, all_of(new, False), update.kappa), new)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_change_tells_a_weight_that_is_not_finite(bad: float, side: int):
    weights = torch.ones(2, 3), torch.full((2, 3), 2.0)
    weights[side][1, 1] = bad
    assert not torch.isfinite(torch.tensor(measure_update(*weights).change))


@pytest.mark.parametrize("share", [-1.0, -0.25, 0.5, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_update_along_the_old_weights_is_removed_whole(share: float, dtype: torch.dtype):
    old = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    new = (1.0 + share) * old
    kappa = measure_update(old, new).kappa
    assert kappa == pytest.approx(share, rel=4 * EPS[dtype])
    torch.testing.assert_close(fuse(old, new, all_of(new, False), kappa), old, rtol=0, atol=30 * EPS[dtype])


# --- the fused weight ---


@deterministic
@given(weight_pairs(), st.floats(-2, 2))
def test_all_columns_restored_give_old_bit_for_bit(pair: tuple[Tensor, Tensor], kappa: float):
    old, new = pair
    assert same_bits(fuse(old, new, all_of(new, True), kappa), old.to(new.dtype))


@deterministic
@given(weight_pairs())
def test_no_column_restored_and_no_orthogonal_step_give_new_bit_for_bit(pair: tuple[Tensor, Tensor]):
    old, new = pair
    fused = fuse(old, new, all_of(new, False), 0.0)
    assert same_bits(fused, new)
    assert fused.is_contiguous()
    assert fused.data_ptr() != new.data_ptr()


def test_the_sign_of_zero_survives():
    old, new = torch.tensor([[0.0, -0.0]], dtype=torch.bfloat16), torch.tensor([[-0.0, 0.0]], dtype=torch.bfloat16)
    for restored in ([True, True], [True, False], [False, True], [False, False]):
        fused = fuse(old, new, torch.tensor(restored), 0.0)
        assert torch.signbit(fused[0]).tolist() == [not restored[0], restored[1]]


@deterministic
@given(weight_pairs(), st.floats(-2, 2), st.data())
def test_each_column_has_its_source(pair: tuple[Tensor, Tensor], kappa: float, data: st.DataObject):
    old, new = pair
    c = new.shape[1]
    restored = torch.tensor(data.draw(st.lists(st.booleans(), min_size=c, max_size=c)))
    fused = fuse(old, new, restored, kappa)
    assert (fused.shape, fused.dtype) == (new.shape, new.dtype)
    assert same_bits(fused[:, restored], old.to(new.dtype)[:, restored])
    adjusted = new.double() - kappa * old.double()
    size = new.double().abs() + abs(kappa) * old.double().abs()
    error = (fused.double() - adjusted).abs()
    smallest = torch.finfo(new.dtype).smallest_normal
    allowed = (EPS[new.dtype] + 3 * EPS[torch.float32]) * size + EPS[new.dtype] * smallest
    representable = adjusted.abs() <= torch.finfo(new.dtype).max
    assert bool((error <= allowed)[representable & ~restored].all())


@deterministic
@given(weight_pairs(same_dtype=True))
def test_what_is_left_of_the_update_is_orthogonal_to_old(pair: tuple[Tensor, Tensor]):
    old, new = (weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight for weight in pair)
    kappa = measure_update(old, new).kappa
    left = fuse(old, new, all_of(new, False), kappa).double() - old.double()
    size = (inner(old, old) * (inner(new, new) + (1 + kappa**2) * inner(old, old))) ** 0.5
    assert abs(inner(left, old)) <= 4 * EPS[new.dtype] * size


def test_restored_and_orthogonal_by_hand():
    old, new = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, 6.0], [7.0, 8.0]])
    assert fuse(old, new, torch.tensor([True, False]), 0.5).tolist() == [[1.0, 5.0], [3.0, 6.0]]


@deterministic
@given(weight_pairs(), st.floats(-2, 2))
def test_nothing_is_written_to_and_the_layout_does_not_matter(pair: tuple[Tensor, Tensor], kappa: float):
    before = [weight.clone() for weight in pair]
    restored = torch.arange(pair[0].shape[1]) % 2 == 0
    results = []
    for old, new in itertools.product(*[(weight, weight.contiguous(), weight.T.contiguous().T) for weight in pair]):
        results.append((measure_update(old, new), fuse(old, new, restored, kappa)))
    assert all(same_bits(weight, copy) for weight, copy in zip(pair, before, strict=True))
    (first, weight), *others = results
    for update, other in others:
        assert same_bits(other, weight)
        torch.testing.assert_close(update.energy, first.energy, rtol=1e-13, atol=0)
        assert (update.change, update.old_norm) == pytest.approx((first.change, first.old_norm), rel=1e-13)


@pytest.mark.parametrize("elements", [1, 5, 6, 12, 29, 1000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_rows_change_nothing(elements: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randn(11, 5, generator=generator).to(dtype) for _ in range(2))
    restored = torch.tensor([True, False, True, False, False])
    whole, weight = measure_update(old, new), fuse(old, new, restored, 0.3)
    monkeypatch.setattr(adjustment, "BLOCK", elements)
    blocks = measure_update(old, new)
    assert same_bits(fuse(old, new, restored, 0.3), weight)
    torch.testing.assert_close(blocks.energy, whole.energy, rtol=1e-13, atol=0)
    assert (blocks.kappa, blocks.change) == pytest.approx((whole.kappa, whole.change), rel=1e-12)


HOSTILE = {
    "large": [3.3e38, -3.3e38, 1e30, 3e38],
    "small": [1e-38, -1e-40, 1e-42, 2e-45],
    "both": [3e38, 1e-45, -3e38, 1.0],
    "cancelling": [1.0, 1.0 + 2.0**-7, -1.0, 2.0**-130],
    "zeros": [0.0, -0.0, 0.0, 2.0**-133],
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", HOSTILE)
def test_hostile_scales_are_summed_as_float64_can(
    scale: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against exact fractions, by several blocks: no square overflows, vanishes, or is called infinite."""
    monkeypatch.setattr(adjustment, "BLOCK", 48)
    draw = torch.Generator().manual_seed(3)
    old, new = (
        torch.tensor(HOSTILE[scale], dtype=torch.float64)[torch.randint(4, (45, 6), generator=draw)].to(dtype)
        for _ in range(2)
    )
    update, rounding = measure_update(old, new), 2.0**-53 * 2 * (45 * 6 + 3)
    before, after = ([[Fraction(x) for x in row] for row in w.double().tolist()] for w in (old, new))
    deltas = [[y - x for x, y in zip(*rows, strict=True)] for rows in zip(before, after, strict=True)]
    energies = [sum(d * d for d in column) for column in zip(*deltas, strict=True)]
    assert update.energy.tolist() == pytest.approx([float(e / 45) for e in energies], rel=rounding, abs=0.0)
    assert update.change == pytest.approx(float(sum(energies)), rel=rounding, abs=0.0)
    norm = sum(x * x for row in before for x in row)
    assert [update.old_norm, squared_norm(old)] == pytest.approx([float(norm)] * 2, rel=rounding, abs=0.0)
    assert squared_distance(old, new) == pytest.approx(update.change, rel=rounding, abs=0.0)
    along = sum(d * x for rows in zip(deltas, before, strict=True) for d, x in zip(*rows, strict=True))
    size = math.sqrt(update.change / update.old_norm)  # what κ is a cancellation of
    assert update.kappa == pytest.approx(float(along / norm), rel=rounding, abs=rounding * size)
    assert all_finite(old)
    assert all_finite(new)


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_values_are_finite_and_infinity_is_not(dtype: torch.dtype) -> None:
    """A sum that is too large for the dtype says nothing."""
    most = torch.finfo(dtype).max
    for values in ([most] * 50, [most, most, -most] * 30, [0.0], []):
        assert all_finite(torch.tensor(values, dtype=dtype))
        for bad in (math.nan, math.inf, -math.inf):
            for place in {0, len(values) // 2, len(values)}:
                assert not all_finite(torch.tensor([*values[:place], bad, *values[place:]], dtype=dtype))
    assert not all_finite(torch.tensor([[math.inf, 1.0], [-math.inf, 2.0]], dtype=dtype).T)


def test_sums_are_the_same_bits_with_any_number_of_threads() -> None:
    draw = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)) for shape in SHAPES]
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            updates = [measure_update(*pair) for pair in pairs]
            sums = [(u.energy.tolist(), u.kappa, u.change, u.old_norm) for u in updates]
            found.append((sums, [squared_distance(*pair) for pair in pairs], [squared_norm(old) for old, _ in pairs]))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


SHAPES = [(90, 1024), (40_000, 3), (2, 40_000), (1, 1)]
"""Blocks of many rows and of one; more columns than a block has elements."""


# --- refusals ---


@pytest.mark.parametrize(("old", "new"), [((2, 3), (3, 2)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3)), ((2, 3), (1, 3))])
def test_weights_of_other_shapes(old: tuple[int, ...], new: tuple[int, ...]):
    sentence = f"expected two matrices of the same shape, found {list(old)} and {list(new)}"
    for call in (measure_update, lambda *weights: fuse(*weights, torch.ones(3, dtype=torch.bool), 0.0)):
        with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole sentence is compared)
            call(torch.ones(old), torch.ones(new))
        assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (torch.ones(2, dtype=torch.bool), "[2] of torch.bool"),
        (torch.ones(1, 3, dtype=torch.bool), "[1, 3] of torch.bool"),
        (torch.ones(3), "[3] of torch.float32"),
        (torch.arange(3), "[3] of torch.int64"),
    ],
)
def test_masks_of_another_kind(mask: Tensor, found: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole sentence is compared)
        fuse(torch.ones(2, 3), torch.ones(2, 3), mask, 0.0)
    assert str(caught.value) == f"expected a mask of shape [3], found {found}"


# --- distances ---


@pytest.mark.parametrize(("a", "b"), [("float64", "float64"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_distances_and_norms_by_blocks(a: str, b: str) -> None:
    """More than one block; a transposed view; and nothing is changed."""
    draw = torch.Generator().manual_seed(0)
    first = torch.randn(300, 1500, generator=draw).to(getattr(torch, a)).T
    second = (first.float() * 1.01 + 0.1).to(getattr(torch, b))
    before = first.clone(), second.clone()
    difference = first.double() - second.double()
    assert squared_distance(first, second) == pytest.approx(float((difference**2).sum()), rel=1e-12)
    assert squared_norm(first) == pytest.approx(float((first.double() ** 2).sum()), rel=1e-12)
    assert torch.equal(first, before[0])
    assert torch.equal(second, before[1])
    assert squared_distance(first, first) == 0.0


def test_distances_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two matrices of the same shape"):
        squared_distance(torch.ones(2, 3), torch.ones(3, 2))
