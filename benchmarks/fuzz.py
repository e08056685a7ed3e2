"""Damaged inputs: whatever a run reads that somebody else may have written, mutated at random.

    python benchmarks/fuzz.py [--cases 12000] [--seed 0] [--seconds 10]

Every case is a file with damage: bytes are flipped, cut, doubled, or values of its JSON replaced. Headers, index files,
configurations, tokenizers' files and calibration lines are opened, checked and encoded, up to the plan of a merge;
reports, results, options, settings, statistics, test files and generation_config.json are given to the command that
reads them, and what a server answers to the client. Only success and the package's own sentences are right; any other
exception, the command's status 1, and more CPU seconds than given are findings. Prints a table, and exits with status 1
if there was a finding.
"""

import argparse
import io
import json
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "helpers"))

from hpa_merge.errors import HPAError, InputError

INDEX = "model.safetensors.index.json"
NUMBERS = (0, -1, 1, 2, 7, 255, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 0.5, -1e300, 1e308)
STRINGS = ("", "x", "\0", "\ud800", "../../etc/passwd", "/dev/zero", "a\nb", "http://127.0.0.1:9/x", "F32", "{{ 1/0 }}")
SHARES = {
    "header": 0.2,
    "index": 0.1,
    "calibration": 0.15,
    "config": 0.15,
    "tokenizer": 0.05,
    "report": 0.1,
    "results": 0.05,
    "options": 0.04,
    "settings": 0.03,
    "statistics": 0.03,
    "test": 0.03,
    "generation": 0.02,
    "answer": 0.05,
}
"""What is damaged, and in which share of the cases."""


class Slow(BaseException):
    """A case took too long; no ``Exception``, so that nothing takes it for an error of its own."""


def odd_value(draw: random.Random) -> Any:
    """A JSON value that somebody did not think of."""
    nested: Any = draw.choice(NUMBERS)
    for _ in range(draw.choice([1, 5, 50, 400])):
        nested = [nested] if draw.random() < 0.5 else {"a": nested}
    choices = [draw.choice(NUMBERS), draw.choice(STRINGS), None, True, [], {}, nested, "x" * draw.choice([300, 10**5])]
    return draw.choice(choices)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with each of its keys."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from places(item)


def mutate_json(value: Any, draw: random.Random) -> Any:
    """Replace, take out, double, rename or swap values, one to three times."""
    for _ in range(draw.choice([1, 1, 2, 3])):
        found = list(places(value))
        if not found or draw.random() < 0.02:
            return odd_value(draw)
        (holder, key), (other, other_key) = draw.choice(found), draw.choice(found)
        kind = draw.randrange(6)
        if kind <= 1:
            holder[key] = odd_value(draw)
        elif kind == 2 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = draw.choice([holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 1000, 0])
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder, dict):
            holder[draw.choice([str(other_key), *STRINGS])] = holder.pop(key)
        else:
            holder[key] = json.loads(json.dumps(other[other_key]))
    return value


def mutate_bytes(content: bytes, draw: random.Random) -> bytes:
    """Flip, cut, insert, double or overwrite bytes, one to four times."""
    damaged = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4])):
        at, length = draw.randrange(len(damaged) + 1), draw.choice([1, 1, 2, 8, 100])
        kind = draw.randrange(6)
        if kind == 0 and at < len(damaged):
            damaged[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del damaged[at : at + length]
        elif kind == 2:
            damaged[at:at] = draw.randbytes(length)
        elif kind == 3:
            damaged[at:at] = damaged[at : at + length] * draw.choice([1, 50])
        elif kind == 4:
            damaged[at:at] = draw.choice([b"[", b"{", b'"', b"\\", b"\xff", b"\0", b"9"]) * draw.choice([1, 2000])
        else:
            del damaged[at:]
    return bytes(damaged)


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A damaged JSON file, as bytes or as values."""
    if draw.random() < 0.35:
        return mutate_bytes(content, draw)
    return json.dumps(mutate_json(json.loads(content), draw)).encode()


def mutated_shard(content: bytes, draw: random.Random) -> bytes:
    """A damaged header, its length right or wrong, before the same data."""
    end = 8 + int.from_bytes(content[:8], "little")
    head, data = content[8:end], content[end:]
    if draw.random() < 0.1:
        return mutate_bytes(content[:end], draw) + data
    head = mutated(head, draw)
    length = (
        len(head) if draw.random() < 0.8 else draw.choice([0, 1, end, len(content), 2**25, 10**8, 2**63, 2**64 - 1])
    )
    return struct.pack("<Q", length) + head + data


COMMANDS = ("report", "results", "options", "settings", "statistics", "test", "generation")
"""What a command of the package reads."""

OPTIONS = """p-max: 12.5
p-min: 5
selection: safety
orthogonal: true
include: [model.layers, lm_head]
exclude: down_proj
safety-samples: 1
seed: 3
"""

SETTINGS = """- &first {p-max: 10, name: ten}
- {<<: *first, p-max: 11, name: eleven}
- method: linear
  weight: 0.25
"""


class Bench:
    """Tiny checkpoints and what was made of one, one file of which is damaged for a case and made whole after it."""

    def __init__(self, folder: Path) -> None:
        from tiny_models import make_calibration, make_pair

        import hpa_merge

        self.models = {}
        for name in ("llama", "gpt2", "llava"):
            old, _ = make_pair(name, folder / name)
            self.models[name] = old, make_calibration(name, folder / name / "calibration")
        self.folder = folder
        self.old, self.new = folder / "llama" / "old", folder / "llama" / "new"
        safety, task = self.models["llama"][1]
        self.out, self.statistics = folder / "out", folder / "statistics.safetensors"
        few = hpa_merge.HPAConfig(safety_samples=1, task_samples=1)
        calibration = {"safety_calib": safety, "task_calib": task}
        hpa_merge.merge(self.old, self.new, self.out, **calibration, config=few, stats=self.statistics)
        self.results, self.prompts = folder / "1.json", folder / "prompts.jsonl"
        self.prompts.write_text(
            json.dumps({"question": "which?", "choices": ["a", "b"], "answer": "B", "category": "x"}) + "\n"
        )
        asked = [
            "eval",
            self.old,
            self.out,
            "--task-test",
            f"t={self.prompts}",
            "--safety-test",
            f"s={self.prompts}",
            "--max-new-tokens",
            "1",
            "--json",
            self.results,
        ]
        assert self.status(*asked) == self.status("score", folder) == 0
        (folder / "options.yaml").write_text(OPTIONS)
        (folder / "settings.yaml").write_text(SETTINGS)
        self.merged = ["--safety-calib", safety, "--task-calib", task, "--dry-run", "-q"]
        for kind in COMMANDS:  # whole files are taken
            assert self.status(*self._words(kind, random.Random(0))[1]) == 0, kind

    def status(self, *words: Any) -> int:
        """The exit status of the command; what it printed is raised where that is a mistake of ours."""
        from hpa_merge.cli import main

        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()) as printed:
            try:
                main([str(word) for word in words])
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        if code == 1:
            raise RuntimeError(printed.getvalue().strip())
        if code == 2:
            raise InputError(printed.getvalue().strip())
        return code

    @contextmanager
    def damaged(self, path: Path, content: bytes) -> Iterator[None]:
        whole = path.read_bytes()
        path.write_bytes(content)
        try:
            yield
        finally:
            path.write_bytes(whole)

    def case(self, kind: str, draw: random.Random) -> tuple[bytes, Callable[[], None]]:
        """What the damaged file holds, and what is to be done with it."""
        name = draw.choice(list(self.models))
        folder, calibration = self.models[name]
        if kind in COMMANDS:
            return self._command(kind, draw)
        if kind == "answer":
            body = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "well", "n": 1}}]}
            content = mutated(json.dumps(body).encode(), draw)
            return content, lambda: self._answer(content)
        if kind == "calibration":
            path = draw.choice(calibration)
            lines = path.read_bytes().splitlines()
            at = draw.randrange(len(lines))
            lines[at] = mutated(lines[at], draw)
            content, check = b"\n".join(lines), self._encode
        elif kind == "header":
            path = draw.choice(sorted(folder.glob("*.safetensors")))
            content, check = mutated_shard(path.read_bytes(), draw), self._open
        elif kind == "index":
            path = folder / INDEX
            content, check = mutated(path.read_bytes(), draw), self._open
        elif kind == "config":
            path = folder / "config.json"
            content, check = mutated(path.read_bytes(), draw), self._plan
        else:
            files = [*folder.glob("*token*.json"), *folder.glob("processor*.json"), *folder.glob("*.jinja")]
            path = draw.choice(sorted(files))
            whole = path.read_bytes()
            content = mutate_bytes(whole, draw) if path.suffix == ".jinja" else mutated(whole, draw)
            check = self._encode

        def run() -> None:
            with self.damaged(path, content):
                check(name)

        return content, run

    def _words(self, kind: str, draw: random.Random) -> tuple[Path, list[Any]]:
        """A file that a command reads, and that command."""
        verified = ["verify", self.out, *draw.choice([[], ["--old", self.old, "--new", self.new]])]
        return {
            "report": (self.out / "hpa_report.json", draw.choice([["inspect", self.out], verified])),
            "results": (self.results, ["score", self.folder]),
            "options": (
                self.folder / "options.yaml",
                [self.old, self.new, *self.merged, "-o", self.folder / "o", "--config", self.folder / "options.yaml"],
            ),
            "settings": (
                self.folder / "settings.yaml",
                ["sweep", self.old, self.new, self.folder / "settings.yaml", *self.merged, "-o", self.folder / "s"],
            ),
            "statistics": (self.statistics, ["inspect", self.statistics]),
            "test": (self.prompts, ["eval", self.new, "--task-test", f"t={self.prompts}", "--max-new-tokens", "1"]),
            "generation": (
                self.new / "generation_config.json",
                [
                    "eval",
                    self.new,
                    "--safety-test",
                    self.models["llama"][1][1],
                    "--samples",
                    "1",
                    "--max-new-tokens",
                    "2",
                ],
            ),
        }[kind]

    def _command(self, kind: str, draw: random.Random) -> tuple[bytes, Callable[[], None]]:
        """A file that a command reads, damaged, and that command."""
        path, words = self._words(kind, draw)
        whole = path.read_bytes()
        if path.suffix == ".yaml":
            content = mutate_bytes(whole, draw)
        else:
            content = mutated_shard(whole, draw) if path == self.statistics else mutated(whole, draw)

        def run() -> None:
            with self.damaged(path, content):
                self.status(*words)

        return content, run

    def _answer(self, content: bytes) -> None:
        from huggingface_hub.utils import httpx

        from hpa_merge.evaluation.endpoint import Endpoint
        from hpa_merge.records import Sample, Turn

        client = Endpoint("http://127.0.0.1:9/v1", "x")
        client._client = httpx.AsyncClient(
            transport=httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(content)))
        )
        try:
            client.answer([Sample("t:1", turns=(Turn("user", ("a",)),))])[0].encode()
        finally:
            client.close()

    def _open(self, name: str) -> None:
        from hpa_merge.checkpoint import Checkpoint

        with Checkpoint.open(self.models[name][0], "NEW") as checkpoint:
            for key in checkpoint.tensors:
                checkpoint.read(key)
            checkpoint.side_files()

    def _plan(self, name: str) -> None:
        import torch

        from hpa_merge.checkpoint import Checkpoint
        from hpa_merge.model import MetaModel

        with Checkpoint.open(self.models[name][0], "NEW") as checkpoint:
            header = {key: (info.dtype, info.shape) for key, info in checkpoint.tensors.items()}
            MetaModel(checkpoint.folder, header, "NEW", torch.device("cpu"))

    def _encode(self, name: str) -> None:
        from hpa_merge.calibration import EncoderProcess, read_samples

        folder, files = self.models[name]
        for path in files:
            samples = read_samples(path, 3, seed=0).samples
            encoder = EncoderProcess.from_checkpoint(folder, samples)
            try:
                for sample in samples:
                    encoder.prepare(sample, 128)
            finally:
                encoder.close()


def fuzz(cases: int, seed: int, seconds: float, folder: Path) -> tuple[dict[str, Counter[str]], list[str], tuple]:
    """Counts of what became of the cases by kind, the findings, and the slowest case: its seconds, kind and number."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Slow("".join(traceback.format_stack(frame, limit=4)))

    bench = Bench(folder)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in SHARES}
    findings: list[str] = []
    slowest: tuple[float, str, int] = (0.0, "", 0)
    before = signal.signal(signal.SIGPROF, stop)
    try:
        for number in range(cases):
            draw = random.Random(f"{seed}/{number}")
            kind = draw.choices(list(SHARES), list(SHARES.values()))[0]
            content, run = bench.case(kind, draw)
            started = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, seconds)
            try:
                run()
                outcome = "accepted"
            except HPAError:
                outcome = "refused"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                outcome = type(error).__name__
                last = traceback.extract_tb(error.__traceback__)[-1]
                findings.append(
                    f"{number} {kind}: {outcome}: {error} ({last.filename}:{last.lineno}) {content[:200]!r}"
                )
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            counts[kind][outcome] += 1
            slowest = max(slowest, (time.process_time() - started, kind, number))
    finally:
        signal.signal(signal.SIGPROF, before)
    return counts, findings, slowest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="of the CPU, for one case, at most")
    arguments = parser.parse_args()

    import transformers

    from hpa_merge.calibration import ENCODER
    from hpa_merge.engine.machine import peak_host_bytes
    from hpa_merge.isolation import kept

    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity(50)
    transformers.utils.logging.disable_progress_bar()
    folder = Path(tempfile.mkdtemp())
    started, imported = time.monotonic(), peak_host_bytes()
    try:
        with kept(ENCODER):
            counts, findings, slowest = fuzz(arguments.cases, arguments.seed, arguments.seconds, folder)
    finally:
        shutil.rmtree(folder)
    outcomes = sorted({outcome for row in counts.values() for outcome in row})
    print(f"| damaged | {' | '.join(outcomes)} |\n| --- |{' --- |' * len(outcomes)}")
    for kind, row in counts.items():
        print(f"| {kind} | {' | '.join(str(row[outcome]) for outcome in outcomes)} |")
    print(f"{arguments.cases} cases, seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    print(f"slowest: {slowest[0]:.2f} s ({slowest[1]}, case {slowest[2]})")
    print(f"peak memory: {peak_host_bytes() >> 20} MiB, of which {imported >> 20} MiB before the first case")
    for finding in findings:
        print(finding)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
