"""What every test shares: quiet transformers, one thread, no network, the tiny pairs, and calls of the command."""

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TQDM_DISABLE", "1")  # what a command prints does not depend on how long it takes
# Before torch is imported, and for every process that a test starts: the matrices are tiny, threads would wait for each
# other, and pytest-xdist has a process for each core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import rewritten  # noqa: F401 - first of the helpers
from children import HOST  # before torch is imported

# isort: split
import hpa_merge.libraries.torchvision  # noqa: F401 - before transformers

# isort: split
from cases import DRAW, Call, TinyCase
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


@pytest.fixture
def make_call(tiny: Callable[..., TinyCase], tmp_path: Path) -> Callable[..., Call]:
    """``make_call(name, dtype)``: on copies of the tiny pair."""

    def make(name: str = "llama", dtype: str = "float32") -> Call:
        case = tiny(name, dtype).copied_to(tmp_path)
        return Call(tmp_path, case.old, case.new, case.safety, case.task, tmp_path / "out")

    return make


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The files of ``hpa-merge demo``: made once for all processes of pytest-xdist, so never written to."""
    from filelock import FileLock

    from hpa_merge.demo import DemoFiles, make_demo

    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    with FileLock(place / "demo.lock"):
        return DemoFiles(place / "demo") if (place / "demo").exists() else make_demo(place / "demo")


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
def without_pictures(
    fresh_host: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Child processes do not find the library that draws."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "vl_convert.py").write_text("raise ModuleNotFoundError('no vl_convert')")
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
