"""What the commands import and how much processor time they take before they have anything to do.

    python benchmarks/startup.py [--only NAME ...] [--keep FOLDER]

Makes a tiny pair, merges it once with --stats, and runs every command and some forty wrong calls of theirs, each in a
process of its own. Prints the exit status, the processor seconds (user and system, child processes included) and the
heavy libraries that the process has imported. Times depend on the machine and its load; the libraries do not.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

HEAVY = ("torch", "transformers", "huggingface_hub", "numpy", "safetensors", "PIL", "rich")

CHILD = f"""
import atexit, sys
def tell():
    print("\\nimported:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
atexit.register(tell)
from hpa_merge.cli import main
main()
"""

Words = list[str | Path]


def make_pair(folder: Path) -> None:
    """OLD, NEW, the calibration files, and wrong ones of each."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        dtype="bfloat16",
    )
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "old")
    for weight in model.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    model.save_pretrained(folder / "new")
    lines = "".join(json.dumps({"input_ids": list(range(1 + i, 33 + i))}) + "\n" for i in range(4))
    for name in ("safety", "task"):
        (folder / f"{name}.jsonl").write_text(lines)
    (folder / "bad.jsonl").write_text('{"text": ')
    (folder / "other.jsonl").write_text('{"texts": "a"}\n')
    (folder / "empty.jsonl").write_text("")
    (folder / "bad.yaml").write_text("p-mix: 3\n")
    (folder / "report").mkdir()
    (folder / "report" / "hpa_report.json").write_text("{}")
    (folder / "stats.txt").write_text("no statistics")

    def broken(name: str, change: Callable[[Path], object]) -> None:
        shutil.copytree(folder / "new", folder / name)
        change(folder / name)

    def configure(place: Path, **values: object) -> None:
        path = place / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    weights = "model.safetensors"
    broken("cut", lambda place: os.truncate(place / weights, (place / weights).stat().st_size - 100))
    broken("pointer", lambda place: (place / weights).write_text("version https://git-lfs.github.com/spec/v1\n"))
    broken("pickle", lambda place: (place / weights).rename(place / "pytorch_model.bin"))
    broken("unknown", lambda place: configure(place, model_type="wonder", architectures=["WonderForCausalLM"]))
    broken("quantised", lambda place: configure(place, quantization_config={"quant_method": "hqq"}))
    broken("mistral", lambda place: configure(place, model_type="mistral", architectures=["MistralForCausalLM"]))


def commands(folder: Path) -> Mapping[str, Words]:
    """Every run, by name."""

    def at(name: str) -> Path:
        return folder / name

    sets: Words = ["--safety-calib", at("safety.jsonl"), "--task-calib", at("task.jsonl"), "--device", "cpu"]
    out: Words = ["-o", at("fresh")]
    tests: Words = ["--safety-test", f"s={at('safety.jsonl')}"]
    task: Words = ["--task-test", f"t={at('task.jsonl')}"]
    max_asr: Words = ["--max-asr", "5"]

    def merge(*words: str | Path, old: str = "old", new: str = "new") -> Words:
        return [at(old), at(new), *(words or (*sets, *out))]

    return {
        "--help": ["--help"],
        "--version": ["--version"],
        "inspect OUT": ["inspect", at("out")],
        "inspect STATS": ["inspect", at("known.safetensors")],
        "verify OUT": ["verify", at("out")],
        "report OUT --to": ["report", at("out"), "--to", at("drawn")],
        "merge --stats, no page": merge(*sets, *out, "--stats", at("known.safetensors"), "--no-page", "--overwrite"),
        "merge --stats": merge(*sets, *out, "--stats", at("known.safetensors"), "--overwrite"),
        "no such command": ["tuen"],
        "no such option": merge(*sets, *out, "--p-mix", "3"),
        "no arguments": [],
        "OLD missing": merge(old="nowhere"),
        "OLD a file": merge(old="safety.jsonl"),
        "NEW no checkpoint": merge(new="report"),
        "NEW truncated": merge(new="cut"),
        "NEW a Git LFS pointer": merge(new="pointer"),
        "NEW a pickle": merge(new="pickle"),
        "NEW of unknown type": merge(new="unknown"),
        "NEW of another type": merge(new="mistral"),
        "NEW quantised, unread": merge(new="quantised"),
        "OUT exists": merge(*sets, "-o", at("out")),
        "OUT in an input": merge(*sets, "-o", at("old") / "out"),
        "OUT nowhere": merge(*sets, "-o", at("nowhere") / "out"),
        "no OUT": merge(*sets),
        "no safety samples": merge(*sets[2:], *out),
        "samples missing": merge("--safety-calib", at("none"), *sets[2:], *out),
        "samples no JSON": merge("--safety-calib", at("bad.jsonl"), *sets[2:], *out),
        "samples of no layout": merge("--safety-calib", at("other.jsonl"), *sets[2:], *out),
        "samples empty": merge("--safety-calib", at("empty.jsonl"), *sets[2:], *out),
        "p-min over p-max": merge(*sets, *out, "--p-min", "50", "--p-max", "10"),
        "option out of range": merge(*sets, *out, "--p-max", "101"),
        "include no expression": merge(*sets, *out, "--include", "layers.("),
        "include nothing": merge(*sets, *out, "--include", "no_such_layer"),
        "YAML with a typo": merge(*sets, *out, "--config", at("bad.yaml")),
        "--private alone": merge(*sets, *out, "--private"),
        "unknown method": merge(*sets, *out, "--method", "best"),
        "template missing": merge(*sets, *out, "--chat-template", at("none.jinja")),
        "image folder missing": merge(*sets, *out, "--image-folder", at("nowhere")),
        "STATS in an input": merge(*sets, *out, "--stats", at("old") / "stats"),
        "STATS nowhere": merge(*sets, *out, "--stats", at("nowhere") / "stats"),
        "STATS is another file": merge(*sets, *out, "--stats", at("stats.txt")),
        "hessians without STATS": merge(*sets, *out, "--stats-hessians"),
        "no CUDA device": merge(*sets[:4], *out, "--device", "cuda:7"),
        "sweep, settings missing": ["sweep", at("old"), at("new"), at("none.yaml"), *sets, *out],
        "tune, test missing": ["tune", at("old"), at("new"), *sets, *out, *max_asr, *tests[:1], "s=none", *task],
        "eval, model missing": ["eval", at("nowhere"), *tests],
        "verify, no OUT": ["verify", at("nowhere")],
        "verify, no report": ["verify", at("old")],
        "verify, broken report": ["verify", at("report")],
        "verify, --old alone": ["verify", at("out"), "--old", at("old")],
        "push, no report": ["push", at("old"), "me/model"],
        "push, no name": ["push", at("out"), "no name"],
        "report, no report": ["report", at("old")],
        "inspect, no report": ["inspect", at("old")],
        "inspect, --csv --json": ["inspect", at("out"), "--csv", "--json"],
        "samples, file missing": ["samples", at("none"), "--model", at("old"), "--as", "task"],
        "score, answers missing": ["score", at("none")],
    }


def measure(words: Words) -> tuple[int, float, str, str]:
    """Exit status, processor seconds, imported libraries, and the last line of what was said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, words)], capture_output=True, text=True, env=environment, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    said, _, imported = done.stderr.rpartition("\nimported:")
    lines = [line for line in (said.strip() or done.stdout.strip()).splitlines() if line.strip()]
    return done.returncode, seconds, imported.strip(), lines[-1] if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=(), help="parts of the names of the runs")
    parser.add_argument("--keep", type=Path, help="make the files here, and use those that are there")
    parser.add_argument("--said", action="store_true", help="print what each run said last")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        if not (folder / "out").exists():
            folder.mkdir(exist_ok=True)
            make_pair(folder)
            words = commands(folder)["merge --stats"]
            measure([folder / "out" if word == folder / "fresh" else word for word in words])
        print(f"{'run':32} status  CPU s  imported")
        for name, words in commands(folder).items():
            if not given.only or any(part in name for part in given.only):
                status, seconds, imported, said = measure(words)
                for made in ("drawn", "fresh"):
                    shutil.rmtree(folder / made, ignore_errors=True)
                print(f"{name:32} {status:6} {seconds:6.2f}  {imported}", f"   {said}" * given.said, flush=True)


if __name__ == "__main__":
    main()
