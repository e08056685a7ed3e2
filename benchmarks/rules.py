"""What a rule takes for one linear weight once its inputs are gathered: HPA's next to those that take whole Hessians.

    python benchmarks/rules.py [--columns 4096 11008] [--rows 4096] [--few 1024] [--many 12288] [--rules hpa ...]

The time is that of the processors, all threads together, from the gathered tokens or Gram matrices to the new weight:
both diagonals and the choice of columns for HPA, the factor and the products for the others. What linears with the same
input share (``q_proj``, ``k_proj`` and ``v_proj``; ``gate_proj`` and ``up_proj``) is counted once in ``first`` and left
out of ``next``, the second weight. Inputs are those of ``layer.py``.
"""

import argparse
import platform
import time

import torch
from layer import DAMPING, tokens
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Curvature, Hessian
from hpa_merge.methods.applying import Curved, adapt


def gathered(x: Tensor) -> Curvature:
    """As a merge gathers it, sample by sample."""
    curvature = Curvature(x.shape[1])
    for sample in x.split(256):
        curvature.add(sample)
    if len(x) > 0.8 * x.shape[1]:
        curvature.hessian(DAMPING)  # what waits goes into the Gram matrix
    return curvature


SETS = ("safety", "task")


class Side:
    """One set's curvature; what linears share is made once."""

    def __init__(self, curvature: Curvature) -> None:
        self.curvature = curvature
        self.hessian: Hessian | None = None
        self.diagonal: Tensor | None = None

    def curved(self, config: HPAConfig) -> Curved:
        """As much as the rule takes."""
        if "hessian" in config.takes and self.hessian is None:
            self.hessian = self.curvature.hessian(DAMPING)
        if "diagonal" in config.takes and self.diagonal is None:
            self.diagonal = self.curvature.inverse_diagonal(DAMPING)
        return Curved(self.diagonal, None, self.hessian)


def seconds(config: HPAConfig, old: Tensor, new: Tensor, sides: tuple[Side, Side]) -> float:
    """Of the processors, for one weight."""
    started = time.process_time()
    known = [side.curved(config) if name in config.sets else Curved() for name, side in zip(SETS, sides, strict=True)]
    list(adapt(old, new, *known, block=0, blocks=32, configs=[config], name="weight"))
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, nargs="+", default=[4096, 11008])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--few", type=int, default=1024)
    parser.add_argument("--many", type=int, default=12288)
    parser.add_argument("--rules", nargs="+", default=["hpa", "regmean", "cgm", "safe-delta"])
    arguments = parser.parse_args()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {time.strftime('%F')}\n"
    )
    print("| columns | safety, task tokens | rule | first | next |\n| --- | --- | --- | --- | --- |")
    for columns in arguments.columns:
        generator = torch.Generator().manual_seed(1)
        old = torch.randn(arguments.rows, columns, generator=generator).bfloat16()
        new = (old.float() + 0.01 * torch.randn(old.shape, generator=generator)).bfloat16()
        for counts in ((arguments.few, arguments.few), (arguments.few, arguments.many), (arguments.many,) * 2):
            curvatures = [gathered(tokens(count, columns, seed)) for seed, count in enumerate(counts)]
            for rule in arguments.rules:
                config = HPAConfig(method=rule)
                sides = Side(curvatures[0]), Side(curvatures[1])
                first, second = (seconds(config, old, new, sides) for _ in range(2))
                words = f"| {columns} | {counts[0]}, {counts[1]} | `{rule}` | {first:.1f} s | {second:.1f} s |"
                print(words, flush=True)


if __name__ == "__main__":
    main()
