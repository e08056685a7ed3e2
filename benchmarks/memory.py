"""Peak host memory and time against the depth of the model: 24 and 96 layers of one width, random weights.

    python benchmarks/memory.py [--hidden 1024] [--layers 24 96] [--rounds 3] [--folder DIR]

Each merge runs in a process of its own on the CPU with two threads; its peak is what the kernel says of that process.
The difference to a process that has only imported the package is what the merge itself takes. Medians of the rounds, in
which the models take turns. Exits with status 1 if the deepest model takes over 5 % more memory than the shallowest, or
over 4.1 / 4 of its time for each layer.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MERGE = """
import json, sys, time
import hpa_merge
from hpa_merge.engine.machine import peak_host_bytes
from hpa_merge.api import merge
imported = peak_host_bytes() / 2**20
started = time.monotonic()
folder = sys.argv[1]
merge(folder + "/old", folder + "/new", folder + "/out", safety_calib=folder + "/safety.jsonl",
      task_calib=folder + "/task.jsonl", config=hpa_merge.HPAConfig(device="cpu"), page=False)
print(json.dumps({"imported": imported, "peak": peak_host_bytes() / 2**20, "seconds": time.monotonic() - started}))
"""


def make_pair(folder: Path, layers: int, hidden: int) -> float:
    """Two random bfloat16 Llama checkpoints with untied heads, and token-id calibration files; MB of one block."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=4096,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.uniform_(-0.03, 0.03, generator=generator)
    model.save_pretrained(folder / "old", max_shard_size="400MB")
    for parameter in model.parameters():
        parameter.data *= 1.01
        parameter.data.flatten()[::7] += 0.002
    model.save_pretrained(folder / "new", max_shard_size="400MB")
    ids = torch.randint(0, 4096, (16, 24), generator=generator).tolist()
    for name, rows in (("safety", ids[:8]), ("task", ids[8:])):
        lines = (json.dumps({"input_ids": row}) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines))
    return sum(p.numel() * p.element_size() for p in model.model.layers[0].parameters()) / 1e6


def measure(folder: Path) -> dict[str, float]:
    """Peak memory in MiB and seconds of one merge in a process of its own."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    result = subprocess.run(
        [sys.executable, "-c", MERGE, str(folder)], env=environment, capture_output=True, text=True, check=True
    )
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, nargs="+", default=[24, 96])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made (default: a temporary folder)")
    arguments = parser.parse_args()

    import torch
    import transformers

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    blocks, rounds = {}, {layers: [] for layers in arguments.layers}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for layers in arguments.layers:
            here = Path(folder, str(layers))
            here.mkdir()
            blocks[layers] = make_pair(here, layers, arguments.hidden)
        for _ in range(arguments.rounds):
            for layers in arguments.layers:
                rounds[layers].append(measure(Path(folder, str(layers))))
    middle = {
        layers: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for layers, rows in rounds.items()
    }
    print("| layers | one block | after imports | peak | of the merge itself | time |")
    print("| --- | --- | --- | --- | --- | --- |")
    for layers, row in middle.items():
        print(
            f"| {layers} | {blocks[layers]:.0f} MB | {row['imported']:.0f} MiB | {row['peak']:.0f} MiB | "
            f"{row['peak'] - row['imported']:.0f} MiB | {row['seconds']:.1f} s |"
        )
    first, last = (middle[layers] for layers in (arguments.layers[0], arguments.layers[-1]))
    growth = last["peak"] / first["peak"] - 1
    own = (last["peak"] - last["imported"]) / (first["peak"] - first["imported"]) - 1
    times = last["seconds"] / first["seconds"]
    deeper = f"from {arguments.layers[0]} to {arguments.layers[-1]} layers"
    print(f"{deeper}: peak {growth:+.1%}, the merge itself {own:+.1%}, {times:.2f} times the time")
    return int(growth > 0.05 or times > 4.1 / 4 * arguments.layers[-1] / arguments.layers[0])


if __name__ == "__main__":
    sys.exit(main())
