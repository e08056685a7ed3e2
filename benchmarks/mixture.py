"""Peak host memory of a merge of a real-size mixture against the forecast; and what comparing the routing costs.

    python benchmarks/mixture.py [--layers 2] [--hidden 2048] [--experts 128] [--width 768] [--tokens 256]
                                 [--samples 16] [--threads 2] [--folder DIR]

A pair in the shape of Qwen3-30B-A3B (128 experts of 2048 × 768, eight for a token, vocabulary of 151,936) with random
bfloat16 weights; the options change the number of blocks, the hidden size, and the number and width of the experts.
With one block, nothing is read ahead while it is computed. The forecast is that of ``--dry-run``; it and the merge run
in processes of their own on the CPU, and the peak is what the kernel says of the process. Exits with status 1 if a
forecast lies below the peak, or over 25 % above it.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPE: dict[str, Any] = {
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
    "intermediate_size": 6144,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
}

SAFETY_SAMPLES = 8

CHILD = """
import json, sys, time
import hpa_merge
from pathlib import Path
from hpa_merge.engine.machine import peak_host_bytes
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.calibration_run import CalibrationRun
folder, what = Path(sys.argv[1]), sys.argv[2]
files = {"safety_calib": folder / "safety.jsonl", "task_calib": folder / "task.jsonl"}
config, started = hpa_merge.HPAConfig(device="cpu"), time.process_time()
if what == "forecast":
    request = MergeRequest.of(folder / "old", folder / "new", {folder / "out": config}, **files)
    (plan,) = preview(request).values()
    print(json.dumps({"bytes": plan.peak_host_bytes}))
else:
    if what == "uncompared":
        CalibrationRun.compare = lambda *_: None
    report = hpa_merge.merge(folder / "old", folder / "new", folder / "out", config=config, page=False, **files)
    print(json.dumps({
        "bytes": peak_host_bytes(), "seconds": time.process_time() - started,
        "pooled": {p: sum(p in (r.pooled or "") for r in report.linears) for p in ("safety", "task")},
        "routing": [[r.safety_drift, r.task_drift] for r in report.routing],
    }))
"""


def make_pair(folder: Path, **shape: int) -> None:
    """Random checkpoints of ``SHAPE`` changed by ``shape``; NEW is OLD with every matrix changed by 1 %."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    config = Qwen3MoeConfig(**SHAPE | shape)
    with torch.device("meta"):
        model = Qwen3MoeForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    for name, value in model.named_parameters():
        if value.ndim > 1:
            value.data.normal_(0.0, 1.0 if "embed" in name else value.shape[-1] ** -0.5)
        else:
            value.data.fill_(1.0)
    model.save_pretrained(folder / "old", max_shard_size="1GB")
    for value in model.parameters():
        for part in value.data.flatten().split(2**24) if value.ndim > 1 else ():
            part += 0.01 * part.float().std().to(part.dtype) * torch.randn_like(part)
    model.save_pretrained(folder / "new", max_shard_size="1GB")


def write_samples(folder: Path, samples: int, tokens: int) -> None:
    import torch

    ids = torch.randint(5, SHAPE["vocab_size"], (SAFETY_SAMPLES + samples, tokens)).tolist()
    for name, rows in (("safety", ids[:SAFETY_SAMPLES]), ("task", ids[SAFETY_SAMPLES:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


def measure(folder: Path, what: str, threads: int) -> dict[str, Any]:
    shutil.rmtree(folder / "out", ignore_errors=True)
    command = [sys.executable, "-c", CHILD, str(folder), what]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=SHAPE["hidden_size"])
    parser.add_argument("--experts", type=int, default=SHAPE["num_experts"])
    parser.add_argument("--width", type=int, default=SHAPE["moe_intermediate_size"], help="of an expert")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, nargs="+", default=[16])
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made (default: a temporary folder)")
    arguments = parser.parse_args()

    import torch
    import transformers

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    wrong = False
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_pair(
            folder,
            num_hidden_layers=arguments.layers,
            hidden_size=arguments.hidden,
            num_experts=arguments.experts,
            moe_intermediate_size=arguments.width,
        )
        print("| task samples | forecast | peak | forecast to it | CPU time | without comparing the routing |")
        print("| --- | --- | --- | --- | --- | --- |")
        for samples in arguments.samples:
            write_samples(folder, samples, arguments.tokens)
            forecast = measure(folder, "forecast", arguments.threads)["bytes"]
            made, plain = (measure(folder, what, arguments.threads) for what in ("merge", "uncompared"))
            ratio = forecast / made["bytes"]
            wrong |= not 1.0 <= ratio <= 1.25
            print(
                f"| {samples} | {forecast / 1e9:.2f} GB | {made['bytes'] / 1e9:.2f} GB | {ratio:.2f} | "
                f"{made['seconds']:.1f} s | {plain['seconds']:.1f} s |",
                flush=True,
            )
            print(f"pooled {made['pooled']}, drift {made['routing']}", file=sys.stderr)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
