"""Files that are longer than any of their kind, in every place that reads one whole: a sentence, and little memory."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import CARD, TinyCase
from checkpoint_folders import sharded_folder  # noqa: F401 - a fixture
from measured import measured

from hpa_merge import merge, write_report
from hpa_merge.checkpoint import Checkpoint, lay_over
from hpa_merge.checkpoint.partial import Partial
from hpa_merge.checkpoint.sidefiles import SideFiles
from hpa_merge.engine.fingerprint import _checkpoint_digest
from hpa_merge.publishing.upload import _card

SIZE = 2 * 10**9
"""Of a file with a hole: it takes no room on the disk, and as much memory as it is long where it is read whole."""


def refused(function: Callable[..., Any], *arguments: object) -> tuple[str, str]:
    """What a call raises; the memory that it takes is no function of the file's length."""
    done = measured(function, *arguments)
    assert done.error is not None, done
    assert done.peak < 2**28
    return done.error


@pytest.fixture(scope="module")
def merged(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OUT without a page; not to be written to."""
    case, out = tiny("llama"), tmp_path_factory.mktemp("merged") / "out"
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, page=False)
    return out


@pytest.mark.gate
@pytest.mark.parametrize(("function", "kind"), [(write_report, "OutputError"), (_card, "PublishError")])
def test_the_model_card_of_out(function: Callable[..., Any], kind: str, merged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(merged, tmp_path / "out"))
    os.truncate(out / CARD, SIZE)
    assert refused(function, out) == (
        kind,
        f"{out / CARD} is not read, because it is longer than 8388608 bytes: shorten it, or fetch it again.",
    )
    assert (out / CARD).stat().st_size == SIZE


def test_the_tokenizer_of_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").touch()
    os.truncate(tmp_path / "tokenizer_config.json", SIZE)
    above = SideFiles(copied=(Path("tokenizer_config.json"),), left_out=())
    assert refused(lay_over, SideFiles((), ()), above, tmp_path) == (
        "CheckpointError",
        f"NEW {tmp_path}: tokenizer_config.json is not read, because it is longer than 16777216 bytes: shorten it, or "
        "fetch it again.",
    )


def digest_of(folder: Path) -> None:
    """What a journal asks of a checkpoint whose config.json has grown since it was opened."""
    with Checkpoint.open(folder, "OLD") as checkpoint:
        os.truncate(folder / "config.json", SIZE)
        _checkpoint_digest(checkpoint)


def carry_from(folder: Path, partial: Path) -> None:
    """What OUT gets of a checkpoint whose index has grown since it was opened."""
    with Checkpoint.open(folder, "NEW") as checkpoint:
        assert checkpoint.index is not None
        os.truncate(folder / checkpoint.index, SIZE)
        partial.mkdir()
        Partial(partial, [], ()).carry(checkpoint, ())


def test_a_configuration_that_grows_during_the_run(sharded: Path) -> None:
    kind, sentence = refused(digest_of, sharded)
    assert kind == "CheckpointError"
    assert "config.json is not read, because it is longer than 16777216 bytes" in sentence


def test_an_index_that_grows_during_the_run(sharded: Path, tmp_path: Path) -> None:
    kind, sentence = refused(carry_from, sharded, tmp_path / "OUT.partial")
    assert kind == "CheckpointError"
    assert "index.json is longer than 100000000 bytes" in sentence
