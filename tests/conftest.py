"""What every test shares: quiet transformers, one thread, no network, the tiny pairs, and calls of the command."""

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is imported, and for every process that a test starts: the matrices are tiny, threads would wait for each
# other, and pytest-xdist has a process for each core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from children import HOST  # first, before torch is imported

# isort: split
from measured import measured

from hpa_merge.isolation import keeping
from hpa_merge.render import folder


def pytest_unconfigure() -> None:
    HOST.__exit__(None, None, None)


def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` is: the cores that this process may use, up to 8, as each takes a gigabyte of memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in an order drawn with this seed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if (seed := config.getoption("--shuffle")) is not None:
        random.Random(seed).shuffle(items)


class TinyCase(NamedTuple):
    """A tiny pair with its calibration files."""

    name: str
    old: Path
    new: Path
    safety: Path
    task: Path

    def copied_to(self, folder: Path) -> "TinyCase":
        """A copy of the two checkpoints, to be damaged; the calibration files stay where they are."""
        for path in (self.old, self.new):
            shutil.copytree(path, folder / path.name)
        return self._replace(old=folder / "old", new=folder / "new")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TinyCase]:
    """``tiny(name, dtype="float32")``: made once a session, so never written to."""
    made: dict[tuple[str, str], TinyCase] = {}

    def make(name: str, dtype: str = "float32") -> TinyCase:
        if (name, dtype) not in made:
            import torch
            from tiny_models import make_calibration, make_pair

            folder = tmp_path_factory.mktemp(f"{name}-{dtype}")
            checkpoints = make_pair(name, folder, dtype=getattr(torch, dtype))
            made[name, dtype] = TinyCase(name, *checkpoints, *make_calibration(name, folder / "calibration"))
        return made[name, dtype]

    return make


@pytest.fixture(scope="session")
def sound(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """``sound(name, **options)``: a merge in bfloat16, made once a session and not to be written to."""
    made: dict[str, Any] = {}

    def make(name: str = "llama", **options: Any) -> Any:
        from published import Published, run

        key = f"{name} {sorted(options.items())}"
        if key not in made:
            case, out = tiny(name, "bfloat16"), tmp_path_factory.mktemp(name) / "out"
            made[key] = Published(case, out, run(case, out, **options))
        return made[key]

    return make


@pytest.fixture
def published(sound: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """``published(name, **options)``: a copy of it, to be damaged."""

    def make(name: str = "llama", **options: Any) -> Any:
        shutil.copytree(sound(name, **options).out, tmp_path / "out")
        return sound(name, **options)._replace(out=tmp_path / "out")

    return make


REPORT = "hpa_report.json"
CARD = "README.md"
DRAW = folder.draw
"""The real one: a session begins by putting one in its place that draws nothing."""


def content(folder: Path) -> dict[str, Any]:
    """Every file of an OUT; the report parsed, without what differs from run to run."""
    files: dict[str, Any] = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    files[REPORT] = {name: value for name, value in json.loads(files[REPORT]).items() if name != "run"}
    return files


@dataclass
class Call:
    """A call of the command that would succeed, to be spoilt."""

    folder: Path
    old: Path
    new: Path
    safety: Path
    task: Path
    out: Path
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        files = ["--safety-calib", self.safety, "--task-calib", self.task, "-o", self.out]
        return [str(item) for item in (self.old, self.new, *files, *self.options)]

    def calibration(self, *lines: object) -> Path:
        """A file of these lines; an object is written as JSON."""
        path = self.folder / "lines.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    def write(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path


@pytest.fixture
def make_call(tiny: Callable[..., TinyCase], tmp_path: Path) -> Callable[..., Call]:
    """``make_call(name, dtype)``: on copies of the tiny pair."""

    def make(name: str = "llama", dtype: str = "float32") -> Call:
        case = tiny(name, dtype).copied_to(tmp_path)
        return Call(tmp_path, case.old, case.new, case.safety, case.task, tmp_path / "out")

    return make


def status(call: Call) -> int | str | None:
    """The exit status of the command, in this process; ``main`` returns where it is 0."""
    from hpa_merge.cli import main

    try:
        main(call.arguments)
    except SystemExit as end:
        return end.code
    return 0


def assert_refused(call: Call, capsys: pytest.CaptureFixture[str], complaint: str) -> None:
    """Status 2, one sentence, nothing written; in this process, so that what a test has changed in it counts."""
    there = sorted(call.folder.rglob("*"))
    assert status(call) == 2
    _check_refusal(capsys.readouterr().err, complaint)
    assert sorted(call.folder.rglob("*")) == there


REFUSAL_SECONDS = 20
"""Of a processor, that a refusal takes at most: half a one is usual, and a busy machine makes several of it."""

REFUSAL_BYTES = 2**28
"""That a refusal takes at most, beyond what the imports do."""


def assert_refused_cheaply(call: Call, complaint: str) -> None:
    """As :func:`assert_refused`, in a process of its own, within bounds of its processor time and memory."""
    from hpa_merge.cli import main

    there = sorted(call.folder.rglob("*"))
    done = measured(main, call.arguments)
    assert (done.status, done.error) == (2, None), done
    _check_refusal(done.errors, complaint)
    assert sorted(call.folder.rglob("*")) == there
    assert done.cpu_seconds < REFUSAL_SECONDS
    assert done.peak < REFUSAL_BYTES


def _check_refusal(printed: str, complaint: str) -> None:
    assert complaint in printed
    assert printed.startswith("Error: ")
    assert printed.count("\n") == 1


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The files of ``hpa-merge demo``: made once a session, so never written to."""
    from hpa_merge.demo import make_demo

    return make_demo(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def program(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``hpa-merge`` and ``python`` as programs on the path, of this checkout, whether or not it is installed."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "hpa-merge"
    script.write_text(f"#!{sys.executable}\nfrom hpa_merge.cli import main\nmain()\n")
    script.chmod(0o755)
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (folder / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    return script


@pytest.fixture
def stub() -> Iterator[Any]:
    """A server of :mod:`endpoint_stub`."""
    from endpoint_stub import serving

    with serving() as server:
        yield server


@pytest.fixture
def endpoint(stub: Any) -> Iterator[Callable[..., Any]]:
    """``endpoint(**options)``: a client of the stub; its pauses are noted in ``stub.pauses`` and not waited for."""
    from hpa_merge.evaluation.endpoint import Endpoint

    made: list[Endpoint] = []

    async def note(seconds: float) -> None:
        stub.pauses.append(seconds)

    def make(url: str = stub.url, **options: Any) -> Endpoint:
        made.append(Endpoint(url, "served", sleep=note, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merges of this test draw the page and the pictures, as they do for users."""
    monkeypatch.setattr("hpa_merge.render.folder.draw", DRAW)


@pytest.fixture
def fresh_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children of this test have a host of their own, which is started when the first of them is."""
    monkeypatch.setattr(keeping, "_host", None)
    monkeypatch.setattr(keeping, "_users", 0)


@pytest.fixture
def without_altair(fresh_host: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes do not find the library that draws."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "altair.py").write_text("raise ModuleNotFoundError('no altair')")
    monkeypatch.syspath_prepend(folder)


@pytest.fixture(scope="session", autouse=True)
def _every_report_fits_the_schema() -> Iterator[None]:
    """Whatever report a test makes is held to docs/hpa_report.schema.json as it is written."""
    from jsonschema import Draft202012Validator

    from hpa_merge.report.schema import MergeReport

    schema = json.loads((Path(__file__).parent.parent / "docs" / "hpa_report.schema.json").read_text(encoding="utf-8"))
    validator, to_json = Draft202012Validator(schema), MergeReport.to_json

    def checked(self: Any) -> str:
        text = to_json(self)
        validator.validate(json.loads(text))
        return text

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MergeReport, "to_json", checked)
        yield


def _shared_state() -> dict[str, Any]:
    """What tests of one process share, beside files."""
    import torch
    import transformers

    return {
        "folder": Path.cwd(),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
        "torch": (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()),
        "verbosity of transformers": transformers.utils.logging.get_verbosity(),
    }


@pytest.fixture(autouse=True)
def _alone(_calm: None) -> Iterator[None]:
    """A test finds random numbers at their beginning, and leaves what is shared as it was: the order does not matter.

    The environment and the import path, which libraries change too, are put back.
    """
    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    before, environment, path = _shared_state(), dict(os.environ), list(sys.path)
    yield
    assert _shared_state() == before
    sys.path[:] = path
    for name in os.environ.keys() - environment.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(environment)


@pytest.fixture(scope="session", autouse=True)
def _calm() -> Iterator[None]:
    """No messages from transformers, no page where a test is not about it, and no process is left behind."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with pytest.MonkeyPatch.context() as patch:  # what is not about the page does not wait for it
        patch.setattr("hpa_merge.render.folder.draw", lambda report: folder.Drawing({}, {}))
        yield
    measured.close()
