"""A tiny OLD and NEW on a Hub on this machine."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from cases import TinyCase
from hub_server import Hub, Repository, serve
from huggingface_hub import constants

from hpa_merge import MergeReport, merge

Tiny = Callable[..., TinyCase]
OLD, NEW = "lab/aligned", "lab/tuned"


def reach(patch: pytest.MonkeyPatch, address: str) -> None:
    """As HF_ENDPOINT would have done it before the start."""
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture(name="hub")
def served_hub(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with the tiny Llamas, among files that nobody wants; the cache is empty."""
    case = tiny("llama").copied_to(tmp_path / "served")
    for folder in (case.old, case.new):
        for name in (
            "pytorch_model.bin",
            "onnx/model.onnx_data",
            "original/params.json",
            ".gitattributes",
            "x.gguf",
            "hpa_report.html",
        ):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("not for us")
        (folder / "templates").mkdir()
        (folder / "templates" / "chat.jinja").write_text("{{ messages }}")
    other = tmp_path / "served" / "v1"
    shutil.copytree(case.new, other)
    (other / "generation_config.json").write_text('{"do_sample": false}')
    hub = Hub(
        {OLD: Repository({"main": case.old}), NEW: Repository({"main": case.new, "v1.0": other, "refs/pr/1": other})}
    )
    stop = serve(hub)
    reach(monkeypatch, hub.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "cache" / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two tries
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    stop()


def run(case: TinyCase, out: Path, old: str = OLD, new: str = NEW, **others: Any) -> MergeReport:
    return merge(old, new, out, safety_calib=case.safety, task_calib=case.task, **others)
