"""What a step of a given length costs a model if it points at nothing: noise on the linear weights of the demo's OLD.

    hpa-merge demo demo
    python benchmarks/far.py demo

Prints for each length, as a share of the norm of all linear weights, and each draw of the noise how many of the
held-out pictures the model still answers correctly.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from hpa_merge import read_report
from hpa_merge.demo import DemoFiles, measure

LENGTHS = (0.05, 0.1, 0.2, 0.3, 0.4)
DRAWS = 8


def main(folder: Path) -> None:
    files = DemoFiles(folder)
    linears = {record.name for record in read_report(folder / "out").linears}
    weights = {p: load_file(p) for p in sorted(files.old.glob("*.safetensors"))}
    norm = sum(v.double().square().sum() for ws in weights.values() for n, v in ws.items() if n in linears) ** 0.5
    print("length  draw  refuses  first task")
    for length in LENGTHS:
        for draw in range(DRAWS):
            generator = torch.Generator().manual_seed(draw)
            noise = {
                name: torch.randn(value.shape, generator=generator)
                for each in weights.values()
                for name, value in each.items()
                if name in linears
            }
            scale = float(length * norm / sum(value.double().square().sum() for value in noise.values()) ** 0.5)
            with TemporaryDirectory() as place:
                moved = Path(place) / "old"
                shutil.copytree(files.old, moved)
                for path, each in weights.items():
                    changed = {n: v + scale * noise[n] if n in linears else v for n, v in each.items()}
                    save_file(changed, moved / path.name, metadata={"format": "pt"})
                scores = measure(moved, files)
            print(f"{length:6.0%}  {draw:4}  {scores.refusal:5.0f} %  {scores.old_task:8.0f} %", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
