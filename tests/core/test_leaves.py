"""The leaves of a set give the same bits wherever they are gathered."""

import pytest
import torch
from curvatures import added, assert_textbook, normal
from torch import Tensor

from hpa_merge.core import folding
from hpa_merge.core.hessian import Curvature, leaf_of
from hpa_merge.core.leaves import LEAVES, GatheredLeaves, leaf_at, rank_at

COLUMNS = 12

SAMPLES = {
    "few tokens": [1, 2, 1],
    "small leaves": [5] * 40,
    "a leaf whose sum travels": [3, 2, 60, 4, 1, 1],
    "sums alone": [40] * 16,
    "more than a chunk": [9, 2100, 7, 2500, 3],
}


def samples(lengths: list[int], dtype: torch.dtype) -> list[Tensor]:
    scale = 2.0**60 if dtype == torch.float32 else 1.0  # whose squares are scaled
    made = [normal(length, COLUMNS, seed).to(dtype) for seed, length in enumerate(lengths)]
    made[len(made) // 2] *= scale
    return made


def gathered(tokens: list[Tensor], places: list[int], **options: bool) -> GatheredLeaves:
    leaves = GatheredLeaves(
        tokens[0].shape[1], offload=options.get("offload", False), apart=options.get("apart", False)
    )
    for turn in (1, 2):  # the samples come to the unit twice
        for place in places:
            leaves.add((turn, leaf_at(place, len(tokens))), tokens[place])
    return leaves


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", SAMPLES.values(), ids=SAMPLES)
def test_any_number_of_ranks_gives_the_same(lengths: list[int], dtype: torch.dtype) -> None:
    tokens = samples(lengths, dtype)
    places = list(range(len(tokens)))
    alone = gathered(tokens, places).total()
    expected = alone.inverse_diagonal(0.01), alone.hessian(0.01).diagonal()
    if dtype == torch.bfloat16:
        assert_textbook(expected[0], torch.cat(tokens * 2))
    for ranks in (1, 2, 3, 16, 20):
        for offload in (False, True):
            found = {}
            for rank in range(ranks):
                own = [place for place in places if rank_at(leaf_at(place, len(tokens)), ranks) == rank]
                found |= gathered(tokens, own, offload=offload, apart=True).leaves()
            total = added(found, travelling=ranks > 1)
            assert (total.tokens, total.peak) == (alone.tokens, alone.peak)
            assert torch.equal(total.inverse_diagonal(0.01), expected[0])
            assert torch.equal(total.hessian(0.01).diagonal(), expected[1])
    waited = gathered(tokens, places, offload=True).total()
    assert torch.equal(waited.inverse_diagonal(0.01), expected[0])


def test_the_smaller_form_travels() -> None:
    """The tokens where they take fewer bytes, or where a set of so many is not multiplied."""
    for dtype, most in ((torch.bfloat16, 13), (torch.float32, 9)):  # 12 columns: 78 float32; 9.6 tokens are multiplied
        for count, lengths in ((most, (most,)), (most + 1, ())):
            leaf = leaf_of(COLUMNS, torch.empty(0, COLUMNS, dtype=dtype))
            leaf.add(torch.ones(count, COLUMNS, dtype=dtype))
            packed = leaf.packed()
            assert packed.lengths == lengths
            (content,) = packed.contents
            assert tuple(content.shape) == ((count, COLUMNS) if lengths else (78,))


def test_leaves_are_contiguous_and_go_to_ranks_in_order() -> None:
    for count in (1, 3, 16, 17, 128):
        leaves = [leaf_at(place, count) for place in range(count)]
        assert leaves == sorted(leaves)
        assert set(leaves) <= set(range(LEAVES))
        assert len(set(leaves)) == min(count, LEAVES)
        for ranks in (1, 2, 3, 5, 16, 40):
            of_ranks = [rank_at(leaf, ranks) for leaf in leaves]
            assert of_ranks == sorted(of_ranks)
            assert max(of_ranks) < ranks


def test_a_leaf_begins_anew() -> None:
    total, leaf = Curvature(COLUMNS), leaf_of(COLUMNS, torch.empty(0, COLUMNS))
    x = normal(200, COLUMNS).float()
    for piece in x.split(50):
        leaf.add(piece)
        total.take(leaf)
        assert (leaf.tokens, leaf.peak) == (0, 0.0)
    assert_textbook(total.inverse_diagonal(0.01), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_triangle_of_many_blocks_is_the_same(dtype: torch.dtype) -> None:
    """Of leaves whose sums are added block by block, and of those that begin a triangle of their own."""
    columns = 333
    tokens = [normal(length, columns, length).to(dtype) for length in (700, 701, 2500, 702, 90)]
    tokens[1] *= 2.0**60  # whose squares are scaled
    found = []
    for apart in (False, True):
        leaves = GatheredLeaves(columns, offload=False, apart=apart)
        for place, x in enumerate(tokens):
            for piece in x.split(500):
                leaves.add((1, place), piece)
        found.append(added(leaves.leaves()) if apart else leaves.total())
    grams = [curvature.hessian(0.01).gram for curvature in found]
    assert grams[0] is not None
    assert grams[1] is not None
    assert torch.equal(grams[0].tril(), grams[1].tril())
    assert torch.equal(found[0].inverse_diagonal(0.01), found[1].inverse_diagonal(0.01))


@pytest.mark.parametrize("rows", [3, 512])
def test_a_triangle_is_folded_and_unfolded(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every number of it, and no other, for even and odd numbers of columns."""
    monkeypatch.setattr(folding, "ROWS", rows)
    for columns in (1, 2, 3, 4, 7, 8, 13, 40, 65):
        square = torch.arange(columns**2, dtype=torch.float32).view(columns, columns)
        lower = square[torch.ones_like(square, dtype=torch.bool).tril()]
        numbers = folding.folded(square)
        assert torch.equal(numbers.sort().values, lower)
        assert torch.equal(folding.unfolded(numbers, columns).tril(), square.tril())
        total = torch.full_like(square, 0.5)
        folding.add_folded(total, numbers, 4.0)
        assert torch.equal(total.tril(), (0.5 + 4.0 * square).tril())


@pytest.mark.parametrize(
    ("columns", "dtype", "kept"),
    [
        (600, torch.bfloat16, 512),
        (600, torch.float32, 480),
        (5000, torch.bfloat16, 625),
        (5000, torch.float32, 625),
    ],
)
def test_the_rank_of_a_leaf_multiplies_where_that_pays(columns: int, dtype: torch.dtype, kept: int) -> None:
    """Also where the tokens take fewer bytes, so that ranks do not wait for each other's products."""
    for count in (kept, kept + 1):
        leaf = leaf_of(columns, torch.empty(0, columns, dtype=dtype))
        leaf.add(torch.ones(count, columns, dtype=dtype))
        assert (leaf.packed().triangle is None) == (count == kept)
        few = leaf_of(columns, torch.empty(0, columns, dtype=dtype), set_tokens=0.8 * columns)
        few.add(torch.ones(count, columns, dtype=dtype))
        assert few.packed().triangle is None or count > 0.8 * columns  # the set takes the dual route


@pytest.mark.parametrize("lengths", [[520] * 20, [600, 30, 10], [530, 520, 20, 900, 2400, 600]])
def test_leaves_that_multiply_early_give_the_same_with_any_number_of_ranks(lengths: list[int]) -> None:
    tokens = [normal(length, 640, seed).to(torch.bfloat16) for seed, length in enumerate(lengths)]
    tokens[1] *= 2.0**60
    places = list(range(len(tokens)))
    alone = gathered(tokens, places).total().hessian(0.01)
    assert alone.gram is not None
    for ranks in (2, 3, 16):
        found = {}
        for rank in range(ranks):
            own = [place for place in places if rank_at(leaf_at(place, len(tokens)), ranks) == rank]
            found |= gathered(tokens, own, apart=True).leaves()
        gram = added(found, travelling=True).hessian(0.01).gram
        assert gram is not None
        assert torch.equal(gram.tril(), alone.gram.tril())
