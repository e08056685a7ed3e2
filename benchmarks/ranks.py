"""What a merge on several GPUs costs, as a model: how long each part takes, and which of them is the wall.

    python benchmarks/ranks.py [--ranks 1 8] [--safety 8] [--task 128] [--tokens 2048] [--disk 6 3] [--floors FILE]

Nothing is run. The parts of a unit are reading OLD and NEW, exchanging their shares, the forwards, the Gram matrices,
moving sums from rank to rank, factoring by owners, and writing OUT. They overlap, so that a unit takes as long as the
longest of: the disk; exchange, forwards, Gram matrices and moving, one after the other; factoring and merging by the
owner who has most, as engine/owners.py divides it. The rates are assumptions, from the data sheets of an H100 and of
its links at the shares below, and of a disk; --floors takes the measured ones from the JSON of benchmarks/gpu.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpa_merge.core.hessian import DUAL_SHARE
from hpa_merge.core.leaves import leaf_at, rank_at
from hpa_merge.engine.owners import Input, Work, owners_of


@dataclass(frozen=True)
class Linear:
    """Linears of a block that read the same input, as one weight ``[rows, columns]``; of experts, as one for each.

    Attributes:
        inputs: how many there are: one, or one for each expert.
        routed: the share of the tokens that an input gets.
    """

    rows: int
    columns: int
    inputs: int = 1
    routed: float = 1.0


@dataclass(frozen=True)
class Model:
    """A stack of equal blocks, and its embeddings and head."""

    blocks: int
    linears: tuple[Linear, ...]
    outside: int

    @property
    def values(self) -> int:
        """Of one block."""
        return sum(each.rows * each.columns * each.inputs for each in self.linears)

    @property
    def active(self) -> float:
        """Values of one block that a token is multiplied with."""
        return sum(each.rows * each.columns * each.inputs * each.routed for each in self.linears)


MODELS = {
    "7B (Llama 2)": Model(
        32, (Linear(12288, 4096), Linear(4096, 4096), Linear(22016, 4096), Linear(4096, 11008)), 2 * 32000 * 4096
    ),
    "70B (Llama 2)": Model(
        80, (Linear(10240, 8192), Linear(8192, 8192), Linear(57344, 8192), Linear(8192, 28672)), 2 * 32000 * 8192
    ),
    "235B-A22B (Qwen3)": Model(
        94,
        (
            Linear(9216, 4096),
            Linear(4096, 8192),
            Linear(3072, 4096, inputs=128, routed=8 / 128),
            Linear(4096, 1536, inputs=128, routed=8 / 128),
        ),
        2 * 151936 * 4096,
    ),
}


@dataclass(frozen=True)
class Rates:
    """Operations and bytes a second; those of the disk are shared by all ranks, the others are each rank's own."""

    forward: float = 0.4 * 989e12  # bfloat16, of the data sheet's dense peak
    gram: float = 0.4 * 989e12
    factor: float = 0.2 * 67e12  # float32
    link: float = 0.8 * 450e9  # NVLink 4, one direction
    read: float = 6e9
    write: float = 3e9


LINKS = {"NVLink": 0.8 * 450e9, "400 Gb/s": 0.8 * 50e9}


def of_unit(model: Model, rates: Rates, ranks: int, samples: tuple[int, int], length: int) -> dict[str, float]:
    """Seconds of each part of a block."""
    stored, most = 2.0 * model.values, [_most(count, ranks) for count in samples]
    tokens = [count * length for count in samples]
    gram = moved = longest = 0.0
    works: list[Work] = []
    for each in model.linears:
        for number in range(each.inputs):
            inputs = []
            for count, share in zip(tokens, most, strict=True):
                own, columns = count * each.routed, each.columns
                inputs.append(Input.of((columns, each.rows, number), int(own), columns))
                whole = min(2.0 * own * columns, 2.0 * columns * columns)  # a sum: tokens, or a float32 triangle
                moved += whole * (ranks - 1) * (1 + 1 / ranks) / ranks
                longest = max(longest, whole * ranks if ranks > 1 else 0.0)
                if own > DUAL_SHARE * columns:
                    gram += share * length * each.routed * float(columns) ** 2
            works.append(Work((inputs[0], inputs[1]), each.rows * each.columns))
    loads = [0.0] * ranks
    for _ in range(model.blocks):
        owners_of(works, loads)  # which balances over the blocks
    return {
        "reading": 2 * stored / rates.read,
        "writing": stored / rates.write,
        "exchange": 2 * stored * (ranks - 1) / ranks / rates.link,
        "forwards": 2 * model.active * sum(most) * length / rates.forward,
        "Gram matrices": gram / rates.gram,
        "moving": max(moved, longest) / rates.link,
        "factoring": max(loads) / model.blocks / rates.factor,
    }


def _most(samples: int, ranks: int) -> int:
    """The samples of the rank that has most."""
    counts = [0] * ranks
    for place in range(samples):
        counts[rank_at(leaf_at(place, samples), ranks)] += 1
    return max(counts)


def total(model: Model, parts: Mapping[str, float], rates: Rates) -> dict[str, float]:
    """Seconds of the whole merge: of what happens at the same time, only the longest in each unit counts."""
    disk = parts["reading"] + parts["writing"]
    running = sum(parts[name] for name in ("exchange", "forwards", "Gram matrices", "moving"))
    outside = 2.0 * model.outside * (2 / rates.read + 1 / rates.write)
    whole = {"disk": disk * model.blocks + outside, "running": running * model.blocks}
    whole["factoring"] = parts["factoring"] * model.blocks
    return whole | {"all": max(disk, running, parts["factoring"]) * model.blocks + outside}


def measured(rates: Rates, file: Path) -> Rates:
    """The rates of one device as benchmarks/gpu has measured them; that of the links stays."""
    shapes: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))["shapes"]
    floors = next(shape["floors"] for shape in shapes.values() if "floors" in shape)
    return replace(
        rates,
        forward=floors["product flops a second, bfloat16"],
        gram=floors["gram flops a second"],
        factor=floors["factor flops a second"],
        read=floors["bytes read"] / floors["reading, cold"],
        write=floors["bytes written"] / floors["writing"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--safety", type=int, default=8, help="samples")
    parser.add_argument("--task", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=2048, help="of a sample")
    parser.add_argument("--disk", type=float, nargs=2, metavar=("READ", "WRITE"), default=(6.0, 3.0), help="GB/s")
    parser.add_argument("--floors", type=Path)
    given = parser.parse_args()
    base = Rates(read=given.disk[0] * 1e9, write=given.disk[1] * 1e9)
    base = base if given.floors is None else measured(base, given.floors)
    print("| model | ranks, links | disk | exchange | forwards | Gram | moving | factoring | in all | the wall |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, model in MODELS.items():
        for ranks in given.ranks:
            for link, speed in LINKS.items() if ranks > 1 else (("", LINKS["NVLink"]),):
                rates = replace(base, link=speed)
                parts = of_unit(model, rates, ranks, (given.safety, given.task), given.tokens)
                whole = total(model, parts, rates)
                wall = max(("disk", "running", "factoring"), key=whole.__getitem__)
                shown = [parts[each] * model.blocks for each in ("exchange", "forwards", "Gram matrices", "moving")]
                cells = [whole["disk"], *shown, whole["factoring"], whole["all"]]
                place = f"{ranks}, {link}" if link else f"{ranks}"
                print(f"| {name} | {place} | {' | '.join(f'{cell:.1f} s' for cell in cells)} | {wall} |")


if __name__ == "__main__":
    main()
