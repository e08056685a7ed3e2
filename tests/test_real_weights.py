"""The continual-tuning example's measure of real weights, against numpy on a model that is made here."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parent.parent / "examples" / "continual_tuning"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    before = set(sys.modules)
    yield importlib.import_module("real_weights")
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and EXAMPLE in Path(str(sys.modules[name].__file__)).parents:
            del sys.modules[name]


class Block(torch.nn.Module):
    """Two linears in a block, one of them after a norm, and one outside of it."""

    def __init__(self) -> None:
        super().__init__()
        block = {"q_proj": torch.nn.Linear(6, 5), "o_proj": torch.nn.Linear(5, 4)}
        self.layers = torch.nn.ModuleList([torch.nn.ModuleDict(block)])
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers[0]["o_proj"](self.layers[0]["q_proj"](x)))


def test_the_figures_of_a_linear(script: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    model, scales = Block(), torch.tensor([0.1, 0.5, 1.0, 2.0, 3.0, 9.0])
    safety = torch.randn(1, 3, 6, generator=generator) * scales
    task = [torch.randn(2, 10, 6, generator=generator) * scales for _ in range(3)]
    found = script.measure(model, model, iter([{"x": safety}]), iter([{"x": x} for x in task]))
    assert [linear["name"] for linear in found] == ["layers.0.q_proj", "layers.0.o_proj"]
    first = found[0]

    weight = model.layers[0]["q_proj"].weight.detach().double().numpy()
    few, many = safety[0].double().numpy(), torch.cat(task).reshape(-1, 6).double().numpy()

    def inverse(x: np.ndarray) -> np.ndarray:
        hessian = 2 * x.T @ x / len(x)
        return np.diag(np.linalg.inv(hessian + 0.01 * np.trace(hessian) / 6 * np.eye(6)))

    norms, squares = np.log(np.linalg.norm(weight, axis=0)), np.log(np.mean(many**2, axis=0))
    expected = {
        "columns": 6,
        "weight": np.std(norms, ddof=1),
        "input": np.std(squares, ddof=1),
        "correlation": np.corrcoef(norms, squares)[0, 1],
        "task_inverse": np.std(np.log(inverse(many)), ddof=1),
        "safety_inverse": np.std(np.log(inverse(few)), ddof=1),
        "rank": 3 / 6,
    }
    assert {name: first[name] for name in expected} == pytest.approx(expected, rel=2e-3)
    rows = script.table({"mine": found})
    assert rows[2].startswith("| mine | after a norm | 1 | 6 | ")
    assert rows[3].startswith("| mine | others | 1 | 5 | ")
    assert len({row.count("|") for row in rows}) == 1


def test_the_texts_are_always_the_same_and_differ(script: ModuleType) -> None:
    texts = script.paragraphs(20)
    assert texts == script.paragraphs(20)
    assert len(set(texts)) == 20
    assert min(map(len, texts)) >= 300
