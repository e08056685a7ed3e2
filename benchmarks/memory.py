"""Peak host memory and time against the depth of the model: 24 and 96 layers of one width, random weights.

    python benchmarks/memory.py [--hidden 1024] [--layers 24 96] [--rounds 3] [--folder DIR]
    python benchmarks/memory.py --nproc 1 2 4 [--layers 4] [--tokens 128] [--samples 32]

Each merge runs in a process of its own on the CPU with two threads; its peak is what the kernel says of that process.
The difference to a process that has only imported the package is what the merge itself takes. Medians of the rounds, in
which the models take turns. Exits with status 1 if the deepest model takes over 5 % more memory than the shallowest, or
over 4.1 / 4 of its time for each layer.

With --nproc, the first model is merged by so many processes, each with one thread, and the peak of each is compared
with the forecast that --dry-run prints for it. Exits with status 1 if one takes more than its forecast.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MERGE = """
import json, os, sys, time
import hpa_merge
from hpa_merge.engine.machine import peak_host_bytes
from hpa_merge.api import merge
from hpa_merge.engine import setup
if "RANK" in os.environ:
    import torch.distributed
    torch.distributed.init_process_group("gloo")
allot, forecasts = setup.allot, []
def forecasting(*arguments, **options):
    forecasts.append(allot(*arguments, **options))
    return forecasts[-1]
setup.allot = forecasting
imported = peak_host_bytes() / 2**20
started = time.monotonic()
folder = sys.argv[1]
merge(folder + "/old", folder + "/new", folder + "/out", safety_calib=folder + "/safety.jsonl",
      task_calib=folder + "/task.jsonl", config=hpa_merge.HPAConfig(device="cpu"), page=False)
print(json.dumps({"imported": imported, "peak": peak_host_bytes() / 2**20, "seconds": time.monotonic() - started,
                  "forecast": forecasts[-1].host / 2**20}))
"""


def make_pair(folder: Path, layers: int, hidden: int, samples: int = 8, tokens: int = 24) -> float:
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
    ids = torch.randint(0, 4096, (2 * samples, tokens), generator=generator).tolist()
    for name, rows in (("safety", ids[:samples]), ("task", ids[samples:])):
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


def measure_ranks(folder: Path, count: int) -> list[dict[str, float]]:
    """Figures as those of :func:`measure`, of each of so many processes of one merge."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    base = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    places = [{"RANK": str(rank), "WORLD_SIZE": str(count)} if count > 1 else {} for rank in range(count)]
    command = [sys.executable, "-c", MERGE, str(folder)]
    ranks = [subprocess.Popen(command, env=base | place, stdout=subprocess.PIPE, text=True) for place in places]
    printed = [each.communicate()[0] for each in ranks]
    return [json.loads(text.splitlines()[-1]) for text in printed]


def compare_with_forecast(arguments: argparse.Namespace) -> int:
    """Print the peak of each process next to its forecast."""
    exceeded = 0
    print("| processes | peak of each | forecast of each | forecast to peak |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_pair(folder, arguments.layers[0], arguments.hidden, arguments.samples, arguments.tokens)
        for count in arguments.nproc:
            figures = measure_ranks(folder, count)
            peaks, forecasts = ([each[key] for each in figures] for key in ("peak", "forecast"))
            shares = [forecast / peak for peak, forecast in zip(peaks, forecasts, strict=True)]
            exceeded += sum(share < 1.0 for share in shares)
            cells = [", ".join(f"{each:.0f}" for each in column) + " MiB" for column in (peaks, forecasts)]
            print(f"| {count} | {cells[0]} | {cells[1]} | {min(shares):.2f} to {max(shares):.2f} |", flush=True)
    return int(exceeded > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, nargs="+", default=[24, 96])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made (default: a temporary folder)")
    parser.add_argument("--nproc", type=int, nargs="+", help="compare so many processes with their forecasts")
    parser.add_argument("--samples", type=int, default=8, help="of each set")
    parser.add_argument("--tokens", type=int, default=24, help="of each sample")
    arguments = parser.parse_args()

    import torch
    import transformers

    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    if arguments.nproc:
        return compare_with_forecast(arguments)
    blocks, rounds = {}, {layers: [] for layers in arguments.layers}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for layers in arguments.layers:
            here = Path(folder, str(layers))
            here.mkdir()
            blocks[layers] = make_pair(here, layers, arguments.hidden, arguments.samples, arguments.tokens)
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
