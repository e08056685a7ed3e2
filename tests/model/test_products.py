"""Weights that are multiplied without their module's forward, in the ways that models do it, read what they read."""

from collections.abc import Callable, Mapping

import pytest
import torch
from curvatures import assert_holds
from torch import Tensor, nn
from torch.nn import functional as F

from hpa_merge.model import ActivationHooks, WatchedWeight
from hpa_merge.model.linears import find_linear_weights, multiplied


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Layers(nn.Module):
    """Three linears that read 6 inputs, a stack of three matrices, and torch's own attention."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 6), nn.Linear(6, 4, bias=False), nn.Linear(6, 4)
        self.narrow = nn.Linear(1, 5)
        self.stack = nn.Parameter(normal(3, 5, 6))
        self.pool = nn.MultiheadAttention(6, 2, batch_first=True)
        self.eval()


@torch.inference_mode()
def inferred(m: Layers, x: Tensor) -> Tensor:
    return m.q(x).sum() + x @ m.k.weight.T


def scaled(weight: Tensor) -> Tensor:
    """A copy whose inputs get factors in place; the result of the operation is ignored."""
    copy = weight.clone()
    copy.mul_(Y[0, :1])
    return copy


X, Y = normal(2, 5, 6, seed=1), normal(1, 7, 6, seed=2)
FLAT = X.reshape(-1, 6)
Wanted = Mapping[str, list[Tensor]]

WAYS: dict[str, tuple[Callable[[Layers], object], Wanted]] = {
    "the module": (lambda m: m.q(X), {"q": [FLAT]}),
    "a vector": (lambda m: (m.q(X[0, 0]), m.k.weight @ X[0, 1]), {"q": [FLAT[:1]], "k": [FLAT[1:2]]}),
    "called twice": (lambda m: m.q(m.q(X)), {"q": [FLAT, FLAT]}),  # the second is computed below
    "the function, beside the module": (lambda m: m.q(X) + F.linear(Y, m.q.weight).sum(), {"q": [FLAT, Y[0]]}),
    "the module and the function of one tensor": (lambda m: m.q(X) + F.linear(X, m.q.weight), {"q": [FLAT]}),
    "from the left": (lambda m: m.k.weight @ X.transpose(1, 2), {"k": [FLAT]}),
    "transposed": (lambda m: torch.matmul(X, m.k.weight.T) + X.matmul(m.v.weight.t()), {"k": [FLAT], "v": [FLAT]}),
    "addmm": (lambda m: torch.addmm(m.v.bias, Y[0], m.v.weight.t()), {"v": [Y[0]]}),
    "einsum": (lambda m: torch.einsum("bsi,oi->bso", X, m.k.weight), {"k": [FLAT]}),
    "einsum by heads": (lambda m: torch.einsum("bsi,hdi->bhsd", X, m.k.weight.view(2, 2, 6)), {"k": [FLAT]}),
    "tensordot": (lambda m: torch.tensordot(X, m.k.weight, dims=([2], [1])), {"k": [FLAT]}),
    "in another dtype": (lambda m: X.double() @ m.k.weight.to(torch.float64).T, {"k": [FLAT.double()]}),
    "normalised": (lambda m: F.linear(X, F.normalize(m.k.weight)), {"k": [FLAT]}),
    "rows with factors": (lambda m: F.linear(X, m.k.weight * Y[0, :4, :1]), {"k": [FLAT]}),
    "inputs with factors": (lambda m: F.linear(X, m.k.weight * Y[0, :1]), {}),
    "a mask": (lambda m: F.linear(X, torch.where(Y[0, :4] > 0, m.k.weight, 0.0)), {}),
    "a difference": (lambda m: F.linear(X, m.k.weight + Y[0, :4]), {"k": [FLAT]}),
    "in place": (lambda m: torch.zeros(7, 4).addmm_(Y[0], m.v.weight.t()), {"v": [Y[0]]}),
    "for inference": (lambda m: inferred(m, X), {"q": [FLAT], "k": [FLAT]}),
    "concatenated": (
        lambda m: F.linear(X, torch.cat([m.q.weight, m.k.weight, m.v.weight])), {"q": [FLAT], "k": [FLAT], "v": [FLAT]}
    ),
    "concatenated with another, turned, split again": (
        lambda m: Y @ torch.cat([torch.ones(2, 6), m.k.weight, m.v.weight]).T.split([6, 4], dim=1)[1], {"v": [Y[0]]}
    ),
    "stacked": (
        lambda m: torch.bmm(X, torch.stack([m.k.weight, m.v.weight]).transpose(1, 2)), {"k": [X[0]], "v": [X[1]]}
    ),
    "rows that read different tensors": (
        lambda m: (F.linear(X, m.q.weight[:2]), F.linear(Y, m.q.weight[2:])), {"q": [FLAT, Y[0]]}
    ),
    "rows that read the same": (lambda m: [F.linear(X, rows) for rows in m.q.weight.chunk(3)], {"q": [FLAT]}),
    "one input": (lambda m: m.narrow(X[:, :, :1]), {"narrow": [FLAT[:, :1]]}),
    "a stack, one by one": (
        lambda m: (F.linear(X, m.stack[1]), Y @ m.stack[2].T), {"stack[1]": [FLAT], "stack[2]": [Y[0]]}
    ),
    "a stack at once": (
        lambda m: torch.baddbmm(torch.zeros(3, 1, 5), Y.expand(3, 7, 6), m.stack.mT),
        {f"stack[{head}]": [Y[0]] for head in range(3)},
    ),
    "attention of torch": (lambda m: m.pool(Y[:, :1], Y, Y), {"pool.in_proj_weight": [Y[0, :1], Y[0]]}),
    "attention of torch to itself": (lambda m: m.pool(X, X, X, need_weights=False), {"pool.in_proj_weight": [FLAT]}),
    "along the outputs": (lambda m: X @ m.q.weight, {}),
    "some of the inputs": (lambda m: F.linear(X[..., :3], m.q.weight[:, :3]), {}),
    "a product of weights": (lambda m: m.k.weight @ m.q.weight, {}),
    "one row": (lambda m: X[0] @ m.k.weight[0], {"k": [X[0]]}),
    "whole, and its norms": (
        lambda m: (m.k(X) * m.k.weight.norm(), m.q(X) * m.q.weight.amax(1)), {"k": [FLAT], "q": [FLAT]}
    ),
    "whole, and some of its inputs": (lambda m: (m.v(X), m.k(X), X[..., :3] @ m.k.weight[:, :3].T), {"v": [FLAT]}),
    "whole, and along its outputs": (lambda m: m.q(X) @ m.q.weight, {}),
    "whole, and with factors": (lambda m: (m.v(X), m.k(X), F.linear(X, m.k.weight * Y[0, :1])), {"v": [FLAT]}),
    "whole, and a factor in place": (lambda m: (m.v(X), m.k(X), F.linear(X, scaled(m.k.weight))), {"v": [FLAT]}),
    "whole, and in a product of weights": (lambda m: (m.v(X), m.k(X), X @ (m.k.weight @ m.q.weight).T), {"v": [FLAT]}),
    "whole, and one row by itself": (lambda m: (m.v(X), m.k(X), torch.dot(X[0, 0], m.k.weight[0])), {"v": [FLAT]}),
    "whole, and gathered": (lambda m: (m.v(X), m.k(X), X @ m.k.weight[torch.tensor([0, 2])].T), {"v": [FLAT]}),
    "whole, and joined along its inputs": (
        lambda m: (m.v(X), m.k(X), torch.cat([X, X], -1) @ torch.cat([m.k.weight, m.q.weight[:4]], 1).T), {"v": [FLAT]}
    ),
    "no product": (lambda m: (m.q.weight.sum(), m.q.weight * 2, F.embedding(torch.tensor([1]), m.q.weight)), {}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_row_that_is_multiplied_counts_once(way: str) -> None:
    torch.manual_seed(0)
    model, (run, wanted) = Layers(), WAYS[way]
    weights = [WatchedWeight(f"{name}.weight", (name,), 1) for name in ("q", "k", "v", "narrow", "pool.out_proj")]
    weights.append(WatchedWeight("pool.in_proj_weight", ("pool.in_proj_weight",), 1))
    weights.append(WatchedWeight("stack", tuple(f"stack[{e}]" for e in range(3)), 2))
    with torch.no_grad():
        plain = run(model)
        if way == "called twice":
            wanted = {"q": [FLAT, model.q(FLAT)]}
        hooks = ActivationHooks(model, weights)
        with hooks.watching([observer for weight in weights for observer in weight.observers]):
            made = run(model)
        hooks.end_sample()
    if isinstance(made, Tensor) and isinstance(plain, Tensor):
        assert type(made) is Tensor
        assert torch.equal(made, plain)
    found = hooks.curvatures()
    assert (found.pop("pool.out_proj", None) is not None) == ("pool.in_proj_weight" in wanted)
    assert found.keys() == wanted.keys()
    for name, rows in wanted.items():
        assert_holds(found[name], torch.cat(rows))


class Raw(nn.Module):
    """Parameters that are weights of no module."""

    def __init__(self) -> None:
        super().__init__()
        self.after, self.before, self.turned = (nn.Parameter(normal(4, 6)) for _ in range(3))
        self.cast, self.heads, self.table = nn.Parameter(normal(4, 6)), nn.Parameter(normal(2, 4, 6)), normal(4, 6)
        self.scale = nn.Parameter(normal(4, 6))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.matmul(x, self.after) + (self.before @ x.mT).mT + x @ self.turned.transpose(0, 1)
        z = nn.functional.linear(x, self.cast.to(x.dtype)) * self.scale + x @ self.table
        return y + z + self.heads[:, None] @ x


def test_the_source_of_a_class_shows_which_axis_is_summed() -> None:
    axes = {"after": -2, "before": -1, "turned": -1, "cast": -1, "table": -2, "heads": -1}
    assert {name: axis for name, axis in multiplied(Raw).items() if name != "x"} == axes
    assert find_linear_weights(nn.ModuleDict({"raw": Raw(), "plain": nn.Linear(2, 3)})) == {
        "raw.after": 0, "raw.before": 1, "raw.turned": 1, "raw.cast": 1, "plain.weight": 1,
    }  # fmt: skip
    assert multiplied(nn.Linear) == {}
    assert multiplied(type("Made", (nn.Module,), {})) == {}  # no source


def test_what_is_wanted_later_is_kept() -> None:
    """A unit that is visited again adds to what it read before; others are dropped."""
    layers = nn.ModuleDict({"shared": nn.Linear(6, 2), "own": nn.Linear(6, 2)})
    hooks = ActivationHooks(layers, [WatchedWeight(f"{name}.weight", (name,), 1) for name in layers])
    with torch.no_grad():
        for x in (FLAT, Y[0]):
            with hooks.watching(["own"], later=["shared"]):
                layers["shared"](x), layers["own"](x)
                hooks.end_sample()
            assert set(hooks.curvatures()) == {"own"}
        assert hooks.waiting
        with hooks.watching(["shared"]):
            pass
    assert_holds(hooks.curvatures()["shared"], torch.cat([FLAT, Y[0]]))
    assert not hooks.waiting
    with hooks.watching(["own"]):
        pass
    assert not hooks.curvatures()
