"""The statistics of one linear input, against the chain that SparseGPT takes to the same numbers.

    python benchmarks/layer.py [--columns 4864 11008] [--tokens 32768] [--rounds 5] [--device cpu]

From the same Hessian, both give ``diag(H⁻¹)``: we by Cholesky and the column norms of the factor's inverse, SparseGPT's
chain by Cholesky, the whole inverse, and Cholesky again (whose last factor holds the diagonal, column by column, as its
sweep over the columns wants it; the diagonal is read off the inverse). Inputs have four channels a thousand times the
rest and are correlated, as real ones are. The error is the largest relative one against float64.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from hpa_merge.core.diagonal import inverse_diagonal_dual, inverse_diagonal_primal
from hpa_merge.core.hessian import DUAL_SHARE, Curvature

DAMPING = 0.01


def tokens(n: int, c: int, seed: int = 0) -> Tensor:
    """``[n, c]`` bfloat16: a third of the energy in 64 directions, and four channels a thousand times the rest."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, c, generator=generator)
    x += torch.randn(n, 64, generator=generator) @ torch.randn(64, c, generator=generator) * 0.09
    x[:, :4] *= 1000.0
    return x.bfloat16()


def gram_of(x: Tensor) -> Tensor:
    """``Σ x xᵀ`` in float32, whole, as any accumulation leaves it."""
    gram = torch.zeros(x.shape[1], x.shape[1], device=x.device)
    for chunk in x.split(2048):
        gram.addmm_(chunk.float().T, chunk.float())
    return gram


def chain(gram: Tensor, n: int) -> Tensor:
    """SparseGPT's three steps in float32; ``[H⁻¹]_jj`` ``[c]``."""
    h = gram * (2.0 / n)
    h.diagonal().add_(DAMPING * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    diagonal = inverse.diagonal().clone()
    torch.linalg.cholesky(inverse, upper=True)
    return diagonal


def exact(x: Tensor) -> Tensor:
    """``[H⁻¹]_jj`` ``[c]`` in float64, from the tokens."""
    h = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
    for chunk in x.split(2048):
        h.addmm_(chunk.double().T, chunk.double(), alpha=2.0 / len(x))
    h.diagonal().add_(DAMPING * h.diagonal().mean())
    return torch.cholesky_inverse(torch.linalg.cholesky(h)).diagonal().clone()


def gathered(x: Tensor) -> Tensor:
    """The Gram matrix as a merge accumulates it, sample by sample."""
    curvature = Curvature(x.shape[1])
    for sample in x.split(256):
        curvature.add(sample)
    return curvature.inverse_diagonal(DAMPING)


def timed(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def alternated(contestants: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """The median seconds of each, round by round in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds + 1):
        for name, work in contestants.items():
            seconds[name].append(timed(work, device))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def error(found: Tensor, expected: Tensor) -> float:
    return float(((found.double() - expected) / expected).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, nargs="+", default=[4864, 11008])
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--few", type=int, default=2048, help="tokens of the smaller set, for the dual route")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{platform.machine()}, {name}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}\n")
    print("| columns | tokens | ours | SparseGPT's chain | ratio | our error | the chain's error |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for columns in arguments.columns:
        for n in (arguments.tokens, arguments.few):
            x = tokens(n, columns).to(device)
            gram = gram_of(x)
            if n <= DUAL_SHARE * columns:
                few = x.float()
                ours = {"ours": lambda few=few: inverse_diagonal_dual(few, DAMPING)}
            else:
                ours = {"ours": lambda gram=gram, n=n: inverse_diagonal_primal(gram, n, DAMPING)}
            seconds = alternated(ours | {"chain": lambda gram=gram, n=n: chain(gram, n)}, arguments.rounds, device)
            expected = exact(x)
            print(
                f"| {columns} | {n} | {seconds['ours']:.3f} s | {seconds['chain']:.3f} s | "
                f"{seconds['ours'] / seconds['chain']:.2f} | {error(gathered(x), expected):.1e} | "
                f"{error(chain(gram, n), expected):.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
