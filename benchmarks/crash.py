"""Kills merges at random moments and resumes them: OUT comes out the same, and is at no time there in part.

    python benchmarks/crash.py [--runs 200] [--interrupts 40] [--commands 20] [--seed 0] [--folder DIR]

Every run is the command itself, in a process forked from this one, which has imported the libraries already. It gets
SIGKILL at a moment drawn from its expected duration, two of three times from what is left of it when OUT.partial is
there. Every second one is killed again while it is resumed; every third one replaces an OUT that exists (--overwrite).
The interrupts are SIGINT and SIGTERM: such a run has to end with status 130, and to leave what it had finished; the
longest time that one took is printed. Then sweep, tune, calib, eval, report and the swap of --overwrite are hit by
SIGKILL, SIGHUP and SIGTERM so many times each. Exits with status 1 if anything is not as it should.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash_commands import kill_commands

PATIENCE = 60.0
"""Seconds after which a run counts as one that hangs."""


def make_inputs(folder: Path) -> list[str]:
    """A tiny Llama pair in several shards and token-id calibration files; the words of the command but OUT."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    generator = torch.Generator().manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=6, vocab_size=256))
    for name in ("old", "new"):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        model.save_pretrained(folder / name, max_shard_size="500KB")
    words = [str(folder / "old"), str(folder / "new"), "-q", "--device", "cpu", "--no-page"]
    for name in ("safety", "task"):
        ids = torch.randint(0, 256, (4, 24), generator=generator).tolist()
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in ids))
        words += [f"--{name}-calib", str(folder / f"{name}.jsonl")]
    return words


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, the report without what differs from run to run and what names the folder."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if "hpa_report.json" in files:
        report = json.loads(files["hpa_report.json"])
        del report["run"], report["verdict"]
        files["hpa_report.json"] = json.dumps(report).encode()
    return files


def run(
    words: list[str],
    log: Path,
    journal: Path,
    *,
    by: int | None = None,
    after: float = 0.0,
    until: Path | None = None,
) -> tuple[int, float, int]:
    """The command, hit by a signal after a while: its status, the seconds it took from there, units durable by then.

    Args:
        until: count ``after`` from the moment at which this is there, or the command has ended.
    """
    pid = os.fork()
    if not pid:
        _be_the_command(words, log)
    durable = 0
    if by is not None:
        while by != signal.SIGKILL and not _is_listening(pid):
            time.sleep(0.001)
        while until is not None and not until.exists() and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
            time.sleep(0.0005)
        time.sleep(after)
        durable = units_in(journal)
        os.kill(pid, by)  # one that has ended is still there to be waited for
    began = time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - began
        if ended:
            return os.waitstatus_to_exitcode(status), seconds, durable
        if seconds > PATIENCE:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _be_the_command(words: list[str], log: Path) -> None:
    status = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        from hpa_merge.cli import main

        main(words)
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _is_listening(pid: int) -> bool:
    """Whether the command's own answer to SIGTERM is in place (or it has ended): before, the signal is Python's."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt")), None)
    return caught is None or bool(caught >> (signal.SIGTERM - 1) & 1) or "State:\tZ" in status


def units_in(journal: Path) -> int:
    """How many units the journal has; -1 where not even the layout is done."""
    try:
        return journal.read_bytes().count(b"\n") - 1
    except FileNotFoundError:
        return -1


@dataclass
class Trial:
    """Runs of one command with one OUT, and what has to be true of it after each."""

    folder: Path
    words: list[str]
    reference: dict[str, bytes]
    units: int
    before: Path | None
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.out, self.partial, self.journal, self.replaced = (
            self.folder / f"out{ending}" for ending in ("", ".partial", ".partial.journal", ".replaced")
        )
        self.words = [*self.words, "-o", str(self.out)]
        if self.before is not None:
            shutil.copytree(self.before, self.out)
            self.words.append("--overwrite")

    def go(self, *more: str, by: int | None = None, after: float = 0.0, until: Path | None = None) -> tuple[int, str]:
        """One run; its status, and how far it came."""
        log = self.folder / "log"
        status, seconds, durable = run([*self.words, *more], log, self.journal, by=by, after=after, until=until)
        if seconds > PATIENCE:
            self.failures.append("hangs")
        if by in (signal.SIGINT, signal.SIGTERM):
            self.longest = max(self.longest, seconds)
            if status not in (0, 130):
                self.failures.append(f"status {status}: {self.said()}")
            if durable > 0 and units_in(self.journal) < durable and not self.published():
                self.failures.append(f"{durable} units were durable, {units_in(self.journal)} are left")
        elif by is not None and status not in (0, -by):
            self.failures.append(f"status {status}: {self.said()}")
        return status, self.stage()

    def finish(self) -> None:
        """Resume to the end."""
        status, _ = self.go("--resume")
        if status:
            self.failures.append(f"resuming ends with {status}: {self.said()}")
        elif not self.published():
            self.failures.append("resumed, and OUT differs")
        elif left := sorted({path.name for path in self.folder.iterdir()} - {"out", "log"}):
            self.failures.append(f"left behind: {left}")

    def published(self) -> bool:
        return self.out.exists() and content(self.out) == self.reference

    def said(self) -> str:
        return (self.folder / "log").read_text().strip()

    def stage(self) -> str:
        """How far the last run came; an OUT that is neither the old nor the new one is a failure."""
        if self.published():
            return "after OUT had appeared"
        if self.out.exists() and not (self.before and content(self.out) == content(self.before)):
            self.failures.append("OUT is incomplete")
        if self.before and not self.out.exists():
            if not self.replaced.exists() or content(self.replaced) != content(self.before):
                self.failures.append("the old OUT is lost")
            return "between the two renames"
        if not self.partial.exists():
            return "before OUT.partial was made"
        durable = units_in(self.journal)
        if durable < 1:
            return "before the first unit was durable"
        return "while units were merged" if durable < self.units else "after the last unit"


STAGES = (
    "before OUT.partial was made",
    "before the first unit was durable",
    "while units were merged",
    "after the last unit",
    "between the two renames",
    "after OUT had appeared",
)


@contextmanager
def place(folder: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield Path(name)


def measure(runs: int, interrupts: int, seed: int, folder: Path) -> list[str]:
    """Do it, print the table, and return every failure in a sentence."""
    words = make_inputs(folder)
    before = folder / "before"
    before.mkdir()
    (before / "config.json").write_text('{"model_type": "llama"}')
    (before / "model.safetensors").write_text("{}")
    durations = []
    for number in range(3):
        out = folder / f"reference-{number}"
        log = folder / "log"
        status, seconds, _ = run([*words, "-o", str(out)], log, Path(f"{out}.partial.journal"))
        if status:
            return [f"a merge that nobody disturbs ends with {status}: {log.read_text()}"]
        durations.append(seconds)
    reference, duration = content(out), sorted(durations)[1]
    out = folder / "timed"
    journal = Path(f"{out}.partial.journal")
    _, rest, _ = run([*words, "-o", str(out)], folder / "log", journal, by=signal.SIGCONT, until=journal)
    units = {record["unit"] for record in json.loads(reference["hpa_report.json"])["linears"]}

    draw = random.Random(seed)

    def moment(journal: Path) -> dict[str, Any]:
        if draw.random() < 1 / 3:
            return {"after": draw.uniform(0.0, duration)}
        return {"until": journal, "after": draw.uniform(0.0, rest)}

    killed: dict[str, Counter[str]] = {kind: Counter() for kind in ("killed", "killed again", "interrupted")}
    failures, incomplete, resumed, longest = [], 0, 0, 0.0
    for number in range(runs + interrupts):
        kill = number < runs
        trial = Trial(folder / f"run-{number}", words, reference, len(units), before if number % 3 == 0 else None)
        by = signal.SIGKILL if kill else (signal.SIGINT, signal.SIGTERM)[number % 2]
        _, stage = trial.go(by=by, **moment(trial.journal))
        killed["killed" if kill else "interrupted"][stage] += 1
        if kill and number % 2 and stage != STAGES[-1]:
            _, stage = trial.go("--resume", by=by, **moment(trial.journal))
            killed["killed again"][stage] += 1
        if stage != STAGES[-1]:
            trial.finish()
            resumed += not trial.failures
        incomplete += "OUT is incomplete" in trial.failures
        longest = max(longest, trial.longest)
        failures += [f"run {number} ({signal.Signals(by).name}): {failure}" for failure in trial.failures]
        shutil.rmtree(trial.folder)

    print(f"{runs} runs killed and {interrupts} interrupted in the {duration:.2f} s that one takes, seed {seed}:")
    print(f"| {'moment':33} | {' | '.join(killed)} |")
    print("| --- | --- | --- | --- |")
    for stage in STAGES:
        print(f"| {stage:33} | {' | '.join(f'{count[stage]:{len(kind)}}' for kind, count in killed.items())} |")
    last = sum(killed[kind][STAGES[-1]] for kind in killed)
    print(f"resumed to the same bytes: {resumed} of {runs + interrupts - last}; OUT was there by then: {last}")
    print(f"incomplete OUT seen: {incomplete}; failures: {len(failures)}")
    print(f"the longest time that an interrupted run took to end: {longest:.2f} s")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--interrupts", type=int, default=40)
    parser.add_argument("--commands", type=int, default=20, help="kills of each other command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where OUT is made (default: a temporary folder)")
    arguments = parser.parse_args()

    import torch
    import transformers

    torch.set_num_threads(1)  # what is forked must not have threads that the fork would lack
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    with place(arguments.folder) as folder:
        failures = measure(arguments.runs, arguments.interrupts, arguments.seed, folder)
        if arguments.commands:
            apart = folder / "commands"
            apart.mkdir()
            failures += kill_commands(make_inputs(apart), apart, arguments.commands, arguments.seed, run)
    for failure in failures:
        print(failure, file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
