"""What a merge cannot be faster than on this machine: its forwards, its curvatures' arithmetic and its bytes.

    python benchmarks/floors.py FOLDER [--json FILE]        # FOLDER as checkpoints.py makes it

The forwards are measured whole (the model without its head, sample by sample). The Gram matrices (the triangle only)
and the factorisations are counted, and divided by the float32 rate of one big matrix product. Reading and copying are
measured on the disk that holds FOLDER, with the files in the page cache; a copy ends with fsync. Threads are torch's
own: set OMP_NUM_THREADS.
"""

import argparse
import json
import os
import time
from pathlib import Path

SIZE = 10**9
"""Bytes read and copied to measure the disk."""

CHUNK = 16 << 20


def count_flops(config: dict, samples: int, tokens: int) -> tuple[float, float]:
    """Of the Gram matrices and of the factorisations, for all layers, by the cheaper of the two forms.

    Primal, for N tokens and c columns: N c² for the triangle, 2/3 c³ for the factor and its inverse. Dual: N² c for the
    triangle of the tokens' Gram matrix, N³/3 for its factor, N² c for solving with it.
    """
    rows = samples * tokens
    gram = factor = 0.0
    for columns in (*[config["hidden_size"]] * 3, config["intermediate_size"]):  # q/k/v, o, gate/up, down
        primal = (rows * columns**2, 2 / 3 * columns**3)
        dual = (rows**2 * columns, rows**3 / 3 + rows**2 * columns)
        cheaper = min(primal, dual, key=sum)
        gram += cheaper[0] * config["num_hidden_layers"]
        factor += cheaper[1] * config["num_hidden_layers"]
    return gram, factor


def product_rate(size: int = 4096, repeats: int = 5) -> float:
    """Flops a second of a float32 matrix product, the best of some."""
    import torch

    left, right = torch.randn(2, size, size)
    out = torch.mm(left, right)
    seconds = []
    for _ in range(repeats):
        began = time.monotonic()
        torch.mm(left, right, out=out)
        seconds.append(time.monotonic() - began)
    return 2 * size**3 / min(seconds)


def forward_seconds(checkpoint: Path, calibration: Path) -> float:
    """All samples of a file through the model, without its head, one by one."""
    import torch
    from transformers import AutoModel

    rows = [torch.tensor([json.loads(line)["input_ids"]]) for line in calibration.read_text().splitlines()]
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.bfloat16)
    with torch.no_grad():
        model(rows[0], use_cache=False)
        began = time.monotonic()
        for row in rows:
            model(row, use_cache=False)
        return time.monotonic() - began


def disk_rates(folder: Path, size: int = SIZE) -> tuple[float, float]:
    """Bytes a second of reading from the page cache, and of copying to the disk."""
    buffer = bytearray(os.urandom(CHUNK))
    source, target = folder / "floors.source", folder / "floors.target"
    try:
        _copy(None, source, buffer, size)
        began = time.monotonic()
        with source.open("rb", buffering=0) as file:
            for offset in range(0, size, CHUNK):
                os.preadv(file.fileno(), [buffer], offset)
        read = size / (time.monotonic() - began)
        began = time.monotonic()
        _copy(source, target, buffer, size)
        return read, size / (time.monotonic() - began)
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)


def _copy(source: Path | None, target: Path, buffer: bytearray, size: int) -> None:
    """The buffer, filled from the source if there is one, to the target until that has its size; then fsync."""
    view = memoryview(buffer)
    with target.open("wb", buffering=0) as out:
        reader = source.open("rb", buffering=0) if source else None
        for offset in range(0, size, CHUNK):
            if reader:
                os.preadv(reader.fileno(), [buffer], offset)
            out.write(view[: min(CHUNK, size - offset)])
        os.fsync(out.fileno())
        if reader:
            reader.close()


def measure(folder: Path) -> dict[str, float]:
    """Rates, and the seconds that they imply for merging the pair in that folder."""
    config = json.loads((folder / "new" / "config.json").read_text())
    weights = {name: sum(f.stat().st_size for f in (folder / name).glob("*.safetensors")) for name in ("old", "new")}
    gram = factor = 0.0
    for name in ("safety", "task"):
        rows = [json.loads(line)["input_ids"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        more = count_flops(config, len(rows), len(rows[0]))
        gram, factor = gram + more[0], factor + more[1]
    read, copy = disk_rates(folder)
    floors = {
        "forward, task": forward_seconds(folder / "new", folder / "task.jsonl"),
        "forward, safety": forward_seconds(folder / "old", folder / "safety.jsonl"),
    }
    rate = product_rate()
    floors |= {"gram": gram / rate, "factorisation": factor / rate}
    return floors | {
        "arithmetic": sum(floors.values()),
        "reading": sum(weights.values()) / read,
        "writing": weights["new"] / copy,
        "disk": sum(weights.values()) / read + weights["new"] / copy,
        "float32 flops a second": rate,
        "bytes read a second": read,
        "bytes copied a second": copy,
        "gram flops": gram,
        "factorisation flops": factor,
    }


def table(floors: dict[str, float]) -> str:
    rate = f"at {floors['float32 flops a second'] / 1e9:.0f} GFLOP/s (float32 product)"
    rows = [
        ("forward, task samples through NEW", "forward, task", "measured, without the head"),
        ("forward, safety samples through OLD", "forward, safety", "measured, without the head"),
        ("Gram matrices", "gram", f"{floors['gram flops'] / 1e12:.2f} TFLOP {rate}"),
        ("factorisations", "factorisation", f"{floors['factorisation flops'] / 1e12:.2f} TFLOP {rate}"),
        ("**arithmetic**", "arithmetic", "the sum of these"),
        ("reading OLD and NEW", "reading", f"at {floors['bytes read a second'] / 1e9:.2f} GB/s (page cache)"),
        ("writing OUT", "writing", f"at {floors['bytes copied a second'] / 1e9:.2f} GB/s (copy and fsync)"),
        ("**disk**", "disk", "the sum of these two"),
    ]
    lines = ["| floor | seconds | how |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {label} | {floors[key]:.2f} | {how} |" for label, key, how in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    floors = measure(arguments.folder)
    if arguments.json:
        arguments.json.write_text(json.dumps(floors, indent=2))
    print(table(floors))


if __name__ == "__main__":
    main()
