"""A Hub on this machine and an OUT to publish, for the tests of publishing/."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from cases import TinyCase
from hub_uploads import TOKEN, UploadHub, serve
from huggingface_hub import constants

from hpa_merge import merge

Tiny = Callable[..., TinyCase]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """An empty Hub, with a token for it; the cache is empty."""
    hub = UploadHub()
    stop = serve(hub)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "cache" / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two tries
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    stop()


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyCase, Path]:
    """One merge; not to be written to."""
    case, out = tiny("llama", "bfloat16"), tmp_path_factory.mktemp("made") / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task)
    return case, out


@pytest.fixture
def out(made: tuple[TinyCase, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[1], tmp_path / "out"))
