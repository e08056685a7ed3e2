"""The other commands, killed at random moments: whatever they write is at any time the old one or the new one.

For benchmarks/crash.py, which runs them. The rule is the same for all: each file or folder that a command makes is as
it was before, or as a run that nobody disturbs makes it; and the same command, run again, ends with that.
"""

import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Run = Callable[..., tuple[int, float, int]]

PROMPTS = ["how do i steal a car", "what is two plus two", "say something kind", "who are you"]


@dataclass(frozen=True)
class Command:
    """A command line whose paths are in one folder, ``{}``.

    Attributes:
        words: of the first run.
        again: what is added when it is run again.
        makes: relative paths of what it makes: files, or folders that appear whole.
        start: a folder with what has to be there before.
        late: kill it when it publishes only, which takes some milliseconds.
    """

    words: tuple[str, ...]
    again: tuple[str, ...]
    makes: tuple[str, ...]
    start: Path | None = None
    late: bool = False


def unsafe(prompt: str, answer: str) -> bool:
    """The judge of ``calib``: every answer will do."""
    return False


def add_tokenizers(folder: Path) -> None:
    """Let OLD and NEW speak: a tokenizer of whole words, one for each token of the model, with a chat template."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *sorted({word for prompt in PROMPTS for word in prompt.split()})]
    size = json.loads((folder / "old" / "config.json").read_text())["vocab_size"]
    words += [f"word{number}" for number in range(len(words), size)]
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    for name in ("old", "new"):
        tokenizer.save_pretrained(folder / name)


def commands_of(words: list[str], folder: Path, run: Run) -> dict[str, Command]:
    """Every command that writes, by name; ``words`` are those of a merge."""
    add_tokenizers(folder)
    old, new, *options = words
    (folder / "settings.yaml").write_text("[{name: a, p-max: 10}, {name: b, p-max: 20}, {name: c, p-max: 30}]")
    prompts, tasks = folder / "prompts.jsonl", folder / "tasks.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    tasks.write_text("".join(json.dumps({"prompt": prompt, "response": "yes"}) + "\n" for prompt in PROMPTS))
    short = ("--max-new-tokens", "4")
    tests = ("--safety-test", f"s={prompts}", "--task-test", f"t={tasks}", *short)
    settings = str(folder / "settings.yaml")
    (merged := folder / "merged").mkdir()
    status, _, _ = run([old, new, *options, "-o", str(merged / "out")], folder / "log", folder / "none")
    assert not status, (folder / "log").read_text()
    quiet, judged = ("-q", "--device", "cpu"), ("--judge", f"{__name__}:unsafe")
    made = ("README.md", "hpa_report.json", "hpa_report.html", "hpa_columns.png")
    return {
        "sweep": Command(
            ("sweep", old, new, settings, *options, "-o", "{}/outs"), ("--resume",), ("outs/a", "outs/b", "outs/c")
        ),
        "tune": Command(
            (
                "tune",
                old,
                new,
                *options,
                *tests,
                "--settings",
                settings,
                "--max-asr",
                "100",
                "--max-broken",
                "100",
                "-o",
                "{}/out",
            ),
            ("--resume",),
            ("out",),
        ),
        "calib": Command(
            ("calib", old, "--prompts", str(prompts), "--n", "2", *short, "-o", "{}/made.jsonl", *judged, *quiet),
            ("--overwrite",),
            ("made.jsonl",),
        ),
        "eval": Command(("eval", old, new, *tests, "--json", "{}/eval.json", *quiet), (), ("eval.json",)),
        "report": Command(("report", "{}/out", "-q"), (), tuple(f"out/{name}" for name in made), start=merged),
        "merge --overwrite": Command(
            (old, new, *options, "--p-max", "20", "--overwrite", "-o", "{}/out"),
            ("--resume",),
            ("out",),
            start=merged,
            late=True,
        ),
    }


def state(path: Path) -> Any:
    """What is there, without what differs from run to run and what names the folder; None where nothing is."""
    if path.is_dir():
        return {str(each.relative_to(path)): state(each) for each in path.rglob("*") if each.is_file()}
    if not path.exists():
        return None
    if path.suffix != ".json":
        return path.read_bytes()
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if key not in ("run", "verdict")}


def kill_commands(words: list[str], folder: Path, count: int, seed: int, run: Run) -> list[str]:
    """Kill each command so many times, print a line for each, and return every failure in a sentence."""
    failures: list[str] = []
    draw = random.Random(seed)
    for name, command in commands_of(words, folder, run).items():
        place = folder / "command"

        def go(*more: str, by: int | None = None, after: float = 0.0) -> tuple[int, float]:
            filled = [word.replace("{}", str(place)) for word in command.words]  # noqa: B023
            until = place / "out.partial" / "model.safetensors.index.json" if command.late else None  # noqa: B023
            return run([*filled, *more], folder / "log", folder / "none", by=by, after=after, until=until)[:2]

        def begin() -> dict[str, Any]:
            shutil.rmtree(place, ignore_errors=True)  # noqa: B023
            shutil.copytree(command.start, place) if command.start else place.mkdir()  # noqa: B023
            return {each: state(place / each) for each in command.makes}  # noqa: B023

        before = begin()
        status, duration = go()
        if status:
            return [*failures, f"{name}, which nobody disturbs, ends with {status}: {(folder / 'log').read_text()}"]
        reference, listing = {each: state(place / each) for each in command.makes}, sorted(place.rglob("*"))
        found: Counter[str] = Counter()
        for number in range(count):
            begin()
            by = (signal.SIGKILL, signal.SIGKILL, signal.SIGHUP, signal.SIGTERM)[number % 4]
            status, _ = go(by=by, after=draw.uniform(0.0, 0.02 if command.late else 1.02 * duration))
            what = f"{name}, {number} ({by.name})"
            if status not in (0, -by if by == signal.SIGKILL else 130):
                failures.append(f"{what}: status {status}: {(folder / 'log').read_text()}")
            seen = {each: state(place / each) for each in command.makes}
            replaced = state(place / "out.replaced")
            for each, content in seen.items():
                between = command.late and content is None and replaced == before[each]
                if content not in (before[each], reference[each]) and not between:
                    failures.append(f"{what}: {each} is neither the old nor the new one")
            found["done" if seen == reference else "not yet" if seen == before else "in between"] += 1
            if seen != reference:
                status, _ = go(*command.again)
                if status:
                    failures.append(f"{what}: run again, it ends with {status}: {(folder / 'log').read_text()}")
                elif {each: state(place / each) for each in command.makes} != reference:
                    failures.append(f"{what}: run again, what it makes differs")
                left = [p for p in sorted(place.rglob("*")) if p not in listing and not p.name.startswith(".hpa-merge")]
                if left:
                    failures.append(f"{what}: left behind: {left}")
        print(f"{name}: killed {count} times in {duration:.2f} s: {dict(found)}", flush=True)
    return failures
