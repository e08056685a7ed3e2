"""How a run began, as its statistics file keeps it: a later merge builds no model, unless anything is different."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from cases import TinyCase, content
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from statistics_runs import described, run

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import CalibrationOptions
from hpa_merge.engine import sampling
from hpa_merge.engine.beginnings import BEGINNING, read_beginning, state_of
from hpa_merge.engine.meta_models import meta_model
from hpa_merge.engine.sets import GivenSet
from hpa_merge.errors import StatisticsError
from hpa_merge.files.statistics import MARK
from hpa_merge.outline import packed, unpacked
from hpa_merge.records import Media, Sample, Turn
from hpa_merge.records.sampling import SampleSet

LOOK = """
import sys
from hpa_merge.cli import main
for words, heavy in RUNS:
    main(words)
    print([name for name in heavy if name in sys.modules])
"""


class Made(NamedTuple):
    case: TinyCase
    out: Path
    stats: Path


@pytest.fixture(scope="module")
def made(tiny: Callable[..., TinyCase], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A merge that has written its statistics."""
    case, folder = tiny("gpt2", "bfloat16"), tmp_path_factory.mktemp("made")
    run(case, folder / "out", folder / "statistics")
    return Made(case, folder / "out", folder / "statistics")


@pytest.mark.gate
def test_what_the_commands_import(made: Made, tmp_path: Path) -> None:
    case, torch_too = made.case, ("torch", "transformers")
    merge = [case.old, case.new, "--safety-calib", case.safety, "--task-calib", case.task, "--stats", made.stats]
    runs = [
        (["verify", made.out, "-q"], torch_too),
        (["inspect", made.stats, "--csv", "-o", tmp_path / "csv"], torch_too),
        (["report", made.out, "--to", tmp_path / "drawn", "-q"], torch_too),
        ([*merge, "-q", "--no-page", "-o", tmp_path / "o"], ("transformers",)),
    ]
    typed = [(list(map(str, words)), heavy) for words, heavy in runs]
    done = subprocess.run(
        [sys.executable, "-c", LOOK.replace("RUNS", repr(typed))], capture_output=True, text=True, check=False
    )
    assert (done.stdout.splitlines(), done.stderr) == (["[]"] * 4, "")
    for shard in made.out.glob("*.safetensors"):
        assert (tmp_path / "o" / shard.name).read_bytes() == shard.read_bytes()


def rewritten(stats: Path, place: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a statistics file with another description."""
    description = described(stats)
    change(description)
    save_file(load_file(stats), place, {MARK: json.dumps(description)})
    return place


@pytest.mark.parametrize("spoil", ["models", "sets", "digest"])
def test_a_damaged_beginning_is_refused(spoil: str, made: Made, tmp_path: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description[BEGINNING][spoil] = "0" if spoil == "digest" else description[BEGINNING][spoil][:1]

    with pytest.raises(StatisticsError, match="is not a whole statistics file"):
        read_beginning(rewritten(made.stats, tmp_path / "statistics", change))


def test_a_file_without_one_is_used_as_before(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = rewritten(made.stats, tmp_path / "statistics", lambda description: description.pop(BEGINNING))
    sampled: list[bool] = []
    real = sampling.sampled
    monkeypatch.setattr(sampling, "sampled", lambda *given: sampled.append(True) or real(*given))
    report = run(made.case, tmp_path / "out", stats)
    assert sampled == [True]
    assert report.run.statistics == {"safety": "read", "task": "read", "file": str(stats)}
    assert content(tmp_path / "out") == content(made.out)


def test_what_the_samples_follow_from(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.case.old, tmp_path / "old")
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "t.jinja").write_text("{{ messages }}")
    turn = Turn("user", ("what?", Media("image", tmp_path / "a.png"), Media("image", b"bytes")))
    sample, options = Sample("f:1", (turn,)), CalibrationOptions(chat_template=str(tmp_path / "t.jinja"))

    def state(sample: Sample = sample, options: CalibrationOptions = options, purpose: str = "task") -> str:
        with Checkpoint.open(tmp_path / "old", "OLD") as checkpoint:
            return state_of(checkpoint, GivenSet(SampleSet((sample,))), purpose, options)

    states = [state(), state(purpose="safety")]
    states.append(state(dataclasses.replace(sample, turns=(dataclasses.replace(turn, parts=("why?",)),))))
    states.append(state(options=dataclasses.replace(options, max_length=7)))
    for file, text in ((tmp_path / "a.png", "b"), (tmp_path / "t.jinja", "{{ messages[0] }}")):
        file.write_text(text)
        states.append(state())
    (tmp_path / "old" / "tokenizer_config.json").write_text("{}")
    states.append(state())
    assert len(set(states)) == len(states)
    assert state() == states[-1]


@pytest.mark.parametrize("name", ["gpt2", "llava", "qwen2_tied"])
def test_an_outline_is_kept_whole(name: str, tiny: Callable[..., TinyCase]) -> None:
    with Checkpoint.open(tiny(name).old, "OLD") as checkpoint:
        meta = meta_model(checkpoint, torch.device("cpu"))
    outline = meta.outline()
    kept = unpacked(json.loads(json.dumps(packed(outline))))
    assert packed(kept) == packed(outline)
    assert kept.linears == meta.linears
    assert kept.units == tuple(meta.units)
    assert [kept.keys_of(unit) for unit in (None, *kept.units)] == [meta.keys_of(unit) for unit in (None, *meta.units)]
    assert kept.slots == meta.slots
    assert [each.uses for each in kept.linears.values()] == [each.uses for each in meta.linears.values()]
    meta.leave_out([*meta.linears][:1])
    assert kept.linears != meta.linears
    kept.leave_out([*kept.linears][:1])
    assert kept.linears == meta.linears
    assert packed(meta.outline()) == packed(outline)  # what was left out is a matter of the pair


def test_the_file_says_one_key_more(made: Made) -> None:
    with safe_open(made.stats, "pt") as handle:
        assert list(handle.metadata()) == [MARK]
    assert list(described(made.stats)) == ["format", "safety", "task", BEGINNING]
