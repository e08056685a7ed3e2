"""The tools that hpa-merge is compared with: each in a virtual environment of its own, installed as a package.

    python benchmarks/peers.py [--peers DIR]        # installs them; compare.py does it too

The constraints are the project's own, so that all use the same torch, and the same transformers where the peer admits
it. None of this is imported by the process that measures: a child's peak memory is counted from the memory of the
process that started it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = {"mergekit": "mergekit==0.1.5", "llm-compressor": "llmcompressor==0.14.0.1"}

UNCONSTRAINED = {"llm-compressor": ("compressed-tensors", "huggingface-hub", "transformers")}
"""What a peer requires in older releases than the project's."""

FOLDER = Path(tempfile.gettempdir()) / "hpa-merge-peers"

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"

LINEAR = """\
merge_method: linear
dtype: bfloat16
models:
  - {{model: {old}, parameters: {{weight: 0.5}}}}
  - {{model: {new}, parameters: {{weight: 0.5}}}}
"""

TIES = """\
merge_method: ties
dtype: bfloat16
base_model: {old}
models:
  - {{model: {new}, parameters: {{density: 0.5, weight: 1.0}}}}
"""

MERGEKIT_OPTIONS = ["--no-cuda", "--lazy-unpickle", "--out-shard-size", "500M", "--no-copy-tokenizer", "--quiet"]
"""For little memory: its default holds 5 GB of results before it writes a shard."""

SPARSEGPT = """
import json, sys
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier
new, task, out = sys.argv[1:]
with open(task) as lines:
    rows = [json.loads(line)["input_ids"] for line in lines]
dataset = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
recipe = SparseGPTModifier(sparsity=0.5, mask_structure="0:0", targets=["Linear"], ignore=["re:.*lm_head"])
oneshot(model=new, dataset=dataset, recipe=recipe, pipeline="sequential", num_calibration_samples=len(rows),
        max_seq_length=max(map(len, rows)), output_dir=out)
"""


def ensure(name: str, folder: Path) -> Path:
    """The virtual environment of a peer, made if it is not there or holds another version."""
    home = folder / name
    stamp = home / "installed.txt"
    free = tuple(f"{package}==" for package in UNCONSTRAINED.get(name, ()))
    lines = CONSTRAINTS.read_text(encoding="ascii").splitlines(keepends=True)
    constraints = "".join(line for line in lines if not line.startswith(free))
    wanted = f"{PACKAGES[name]}\n{constraints}"
    if not (stamp.is_file() and stamp.read_text(encoding="ascii") == wanted):
        print(f"installing {PACKAGES[name]}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        own = home / "constraints.txt"
        own.write_text(constraints, encoding="ascii")
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", PACKAGES[name]]
        subprocess.run(pip, check=True, env=os.environ | {"PIP_CONSTRAINT": str(own)})
        stamp.write_text(wanted, encoding="ascii")
    return home


def versions(home: Path) -> dict[str, str]:
    """Of what matters in a virtual environment."""
    program = (
        "from importlib import metadata\n"
        "names = {d.name for d in metadata.distributions()}\n"
        "for n in ('mergekit', 'llmcompressor', 'compressed-tensors', 'torch', 'transformers', 'safetensors'):\n"
        "    if n in names: print(n, metadata.version(n))\n"
    )
    result = subprocess.run([home / "bin" / "python", "-c", program], capture_output=True, text=True, check=True)
    return dict(line.split() for line in result.stdout.splitlines())


def mergekit_command(home: Path, recipe: str, inputs: Path, out: Path) -> list[str]:
    """`linear` or `ties` of old/ and new/; its configuration is written beside OUT."""
    config = out.with_suffix(".yaml")
    config.write_text(recipe.format(old=inputs / "old", new=inputs / "new"), encoding="utf-8")
    return [str(home / "bin" / "mergekit-yaml"), str(config), str(out), *MERGEKIT_OPTIONS]


def sparsegpt_command(home: Path, inputs: Path, out: Path) -> list[str]:
    """SparseGPT of new/ with the samples of the task; saves OUT too."""
    return [str(home / "bin" / "python"), "-c", SPARSEGPT, str(inputs / "new"), str(inputs / "task.jsonl"), str(out)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=FOLDER, help="where the virtual environments are kept")
    folder = parser.parse_args().peers
    for name in PACKAGES:
        print(name, versions(ensure(name, folder)))


if __name__ == "__main__":
    main()
