"""Which regime are real models in? The spread of the channels on real weights and on the experiment's bases.

    python examples/continual_tuning/real_weights.py NAME=FOLDER... --bases runs/bases [--seeds N] [--json FILE]

Each FOLDER is a text model in Hugging Face layout with its tokenizer. Its texts are paragraphs of Python's own
documentation: 8 short ones in the place of the safety samples, 128 longer ones in the place of the task's. The bases,
which are made if they are not there, get 8 harmful requests with their refusals and 128 samples of the first task.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from pydoc_data.topics import topics
from random import Random
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tasks
import torch
import transformers
from bases import Regime, load, make_base, refusals
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from hpa_merge.core import Curvature
from hpa_merge.demo.samples import encode

SAFETY, TASK = 8, 128
"""Samples of each set: the defaults of a merge."""

SAFETY_TOKENS, TASK_TOKENS = 40, 128
"""Most tokens of a real model's sample: a short request with its refusal, and a longer sample."""

DAMPING = 0.01

AFTER_NORM = ("query", "key", "value", "intermediate.dense", "q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
"""Linears that read what a norm has scaled, by the end of their names: where ``spread`` acts."""

BASES = {
    "base of `lora`, `full`": Regime(),
    "base of `spread`, `spread-lora`": Regime(spread=1.0),
}

FIGURES = {
    "weight": "log ‖W_j‖",
    "input": "log E x_j²",
    "correlation": "their correlation",
    "task_inverse": "log [H_t⁻¹]_jj",
    "safety_inverse": "log [H_s⁻¹]_jj",
    "rank": "rank of H_s",
}
"""What is measured of a linear, and its heading."""

Batch = dict[str, Tensor]


def main() -> None:
    """Measure, print the table, and write the figures of each linear."""
    options = _options()
    found: dict[str, list[dict[str, Any]]] = {}
    for name, folder in options.models:
        found[name] = measure_text_model(Path(folder))
    for name, regime in BASES.items():
        of_bases = [measure_base(make_base(options.bases, seed, regime), seed) for seed in range(options.seeds)]
        found[name] = [linear for linears in of_bases for linear in linears]
    print("\n".join(table(found)))
    if options.json is not None:
        versions = {library.__name__: str(library.__version__) for library in (torch, transformers)}
        lines: list[dict[str, Any]] = [{"date": datetime.now(UTC).date().isoformat(), "versions": versions}]
        lines += [{"model": name, **linear} for name, linears in found.items() for linear in linears]
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        options.json.write_text(text, encoding="utf-8")


def measure_text_model(folder: Path) -> list[dict[str, Any]]:
    """The figures of each linear in the blocks of a text model."""
    model = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    texts = paragraphs(SAFETY + TASK)

    def batches(chosen: list[str], most: int) -> Iterator[Batch]:
        for text in chosen:
            yield dict(tokenizer(text, truncation=True, max_length=most, return_tensors="pt"))

    return measure(model, model, batches(texts[:SAFETY], SAFETY_TOKENS), batches(texts[SAFETY:], TASK_TOKENS))


def measure_base(folder: Path, seed: int) -> list[dict[str, Any]]:
    """The figures of each linear in the text model of one of the experiment's bases."""
    model, processor = load(folder)
    rng = Random(f"real weights {seed}")
    safety = refusals(model, processor, rng, SAFETY)
    task = tasks.make_task(next(iter(tasks.TASKS)), rng, TASK)

    def batches(samples: list[Any]) -> Iterator[Batch]:
        for sample in samples:
            batch = encode(processor, [sample], answered=True)
            yield {name: value for name, value in batch.items() if name != "labels"}

    return measure(model, model.model.language_model, batches(safety), batches(task))


def paragraphs(count: int) -> list[str]:
    """Paragraphs of Python's documentation that are not short: the same ones with every call."""
    every = [" ".join(text.split()) for topic in sorted(topics) for text in topics[topic].split("\n\n")]
    return Random(0).sample(sorted({text for text in every if len(text) >= 300}), count)


def measure(model: nn.Module, part: nn.Module, safety: Iterator[Batch], task: Iterator[Batch]) -> list[dict[str, Any]]:
    """The figures of each linear in the blocks of ``part``, with the inputs that ``model`` gives them.

    Returns:
        For each linear its name, its columns, and the :data:`FIGURES`. ``weight``, ``input``, ``task_inverse`` and
        ``safety_inverse`` are standard deviations over the columns ``j``, of the logarithms of ``‖W_j‖``, of ``E x_j²``
        over the task's tokens, and of ``[H⁻¹]_jj``. ``correlation`` is that of the first two, and
        ``rank`` that of the safety tokens, as a share of the columns.
    """
    linears = {
        name: module
        for name, module in part.named_modules()
        if isinstance(module, nn.Linear) and any(word.isdecimal() for word in name.split("."))
    }
    few: dict[str, list[Tensor]] = {name: [] for name in linears}
    many = {name: Curvature(linear.in_features) for name, linear in linears.items()}
    squares = {name: torch.zeros(linear.in_features, dtype=torch.float64) for name, linear in linears.items()}  # (c,)
    run(model, linears, safety, lambda name, x: few[name].append(x))

    def see(name: str, x: Tensor) -> None:
        many[name].add(x)
        squares[name] += x.double().square().sum(dim=0)

    run(model, linears, task, see)
    return [
        {"name": name, **figures(linear.weight.detach(), torch.cat(few[name]), many[name], squares[name])}
        for name, linear in linears.items()
    ]


@torch.no_grad()
def run(
    model: nn.Module, linears: dict[str, nn.Linear], batches: Iterator[Batch], see: Callable[[str, Tensor], None]
) -> None:
    """Forward each batch, and pass each linear's inputs ``[tokens, c]`` to ``see``."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda module, inputs: see(name, inputs[0].reshape(-1, inputs[0].shape[-1]))

    handles = [linear.register_forward_pre_hook(hook(name)) for name, linear in linears.items()]
    try:
        for batch in batches:
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()


def figures(weight: Tensor, safety: Tensor, task: Curvature, squares: Tensor) -> dict[str, Any]:
    """The figures of a linear ``[r, c]``, from the safety tokens ``[t, c]`` and the task's curvature.

    Args:
        squares: the sums of the squares of the task's inputs, ``[c]`` float64.
    """
    of_safety = Curvature(weight.shape[1])
    of_safety.add(safety)
    norms = weight.double().norm(dim=0)  # (c,)
    alive = (norms > 0) & (squares > 0)
    both = torch.stack([norms[alive].log(), squares[alive].log()])  # (2, columns)
    found = {
        "weight": float(both[0].std()),
        "input": float(both[1].std()),
        "correlation": float(torch.corrcoef(both)[0, 1]),
        "task_inverse": float(task.inverse_diagonal(DAMPING).double().log().std()),
        "safety_inverse": float(of_safety.inverse_diagonal(DAMPING).double().log().std()),
        "rank": int(torch.linalg.matrix_rank(safety.double(), rtol=1e-5)) / weight.shape[1],
    }
    return {"columns": weight.shape[1], **{name: float(f"{value:.4g}") for name, value in found.items()}}


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of Markdown: medians over the linears after a norm, and over the others."""
    lines = [f"| {' | '.join(['model', 'linears', '', 'columns', *FIGURES.values()])} |", "| --- " * 10 + "|"]
    for name, linears in found.items():
        for where in ("after a norm", "others"):
            chosen = [each for each in linears if each["name"].endswith(AFTER_NORM) == (where == "after a norm")]
            sizes = sorted({each["columns"] for each in chosen})
            medians = [f"{median(each[figure] for each in chosen):#.3g}" for figure in FIGURES]
            lines.append(f"| {' | '.join([name, where, str(len(chosen)), ', '.join(map(str, sizes)), *medians])} |")
    return lines


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME=FOLDER", type=lambda text: tuple(text.split("=", 1)))
    parser.add_argument("--bases", type=Path, required=True, help="where the experiment's bases are, or are made")
    parser.add_argument("--seeds", type=int, default=1, help="how many bases of each kind")
    parser.add_argument("--json", type=Path, help="write the figures to this file, a line for each linear")
    return parser.parse_args()


if __name__ == "__main__":
    main()
