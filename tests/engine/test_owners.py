"""Linears that share a curvature have one owner, and the cost of the rest is balanced."""

from hpa_merge.engine.owners import Input, Work, owners_of

NONE = Input(None, 0.0)


def work(old: Input, new: Input = NONE, values: int = 0) -> Work:
    return Work((old, new), values)


def test_what_shares_a_curvature_stays_together() -> None:
    qkv, o, gate = (Input.of(name, 100, 64) for name in ("qkv", "o", "gate"))
    owners = owners_of([work(qkv, qkv), work(qkv, qkv), work(o, o), work(gate, gate), work(gate, gate)], [0.0] * 4)
    assert owners[0] == owners[1] != owners[2]
    assert owners[3] == owners[4]
    assert len(set(owners)) == 3


def test_sharing_in_one_set_is_enough() -> None:
    a, b, c = (Input(name, 1.0) for name in "abc")
    assert len(set(owners_of([work(a, a), work(b, a), work(b, b), work(c, c)], [0.0] * 4)[:3])) == 1
    assert len(set(owners_of([work(c, a), work(a, c)], [0.0] * 2))) == 2  # the two sets are not compared
    assert len(set(owners_of([work(NONE), work(NONE)], [0.0] * 2))) == 1  # nothing to do


def test_what_makes_one_tensor_stays_together() -> None:
    """A stack of experts, the factors of an adapter; the same name elsewhere is another thing."""
    sharing = [frozenset({"x"}), frozenset({"x", "y"}), frozenset({"y"}), frozenset({"z"}), frozenset[str]()]
    inputs = [Input(name, 1.0) for name in "abcdx"]
    owners = owners_of([Work((each, NONE), 0, parts) for each, parts in zip(inputs, sharing, strict=True)], [0.0] * 5)
    assert owners[0] == owners[1] == owners[2]
    assert len({*owners}) == 3


def test_the_cost_is_balanced() -> None:
    small, large = [Input.of(n, 4096, 1024) for n in range(4)], Input.of("large", 4096, 3072)
    owners = owners_of([*map(work, small), work(large)], [0.0] * 2)
    assert owners == [1, 1, 1, 1, 0]
    assert owners_of([work(NONE, values=values) for values in (5, 4, 3, 2)], [0.0] * 2) == [0, 1, 1, 0]


def test_the_cost_is_that_of_the_cheaper_route() -> None:
    costs = [Input.of(None, tokens, 1000).cost for tokens in (10, 400, 800, 801, 10**6)]
    assert costs[0] < costs[1] < costs[2]
    assert costs[3] == costs[4] < costs[2]  # the Gram matrix is made where the samples run
