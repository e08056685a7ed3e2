"""``--stats`` with a file that is none of ours, is damaged, or may not lie there: refused, and left as it is."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import TinyCase
from safetensors.torch import load_file, save_file
from statistics_runs import described, run

from hpa_merge.errors import StatisticsError
from hpa_merge.files.statistics import MARK

O_PROJ = "model.layers.2.self_attn.o_proj.weight"
Tiny = Callable[..., TinyCase]


def refused(case: TinyCase, out: Path, stats: Path) -> str:
    there = sorted(out.parent.rglob("*"))
    before = stats.read_bytes() if stats.is_file() else None
    with pytest.raises(StatisticsError) as caught:
        run(case, out, stats)
    assert sorted(out.parent.rglob("*")) == there
    assert before is None or stats.read_bytes() == before
    return str(caught.value)


@pytest.mark.parametrize("kind", ["checkpoint", "text", "empty", "truncated", "header", "folder", "format"])
def test_what_is_none_of_ours_is_never_written_over(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    case, stats = tiny("gpt2"), tmp_path / "given"
    reason = ""
    if kind == "checkpoint":
        stats.write_bytes(next(case.old.glob("*.safetensors")).read_bytes())
        reason = f"its metadata have no '{MARK}'"
    elif kind == "folder":
        stats.mkdir()
        reason = "it is not a file"
    elif kind in ("text", "empty"):
        stats.write_text("p-max: 15\n" if kind == "text" else "")
    else:
        run(case, tmp_path / "first", stats)
        whole = stats.read_bytes()
        if kind == "format":
            whole = whole.replace(rb"\"format\": 1", rb"\"format\": 2")
            reason = "it has format 2, and this version reads 1"
        stats.write_bytes({"truncated": whole[:-8], "header": whole[:100], "format": whole}[kind])
    sentence = refused(case, tmp_path / "out", stats)
    assert sentence.startswith(f"{stats} is not a whole statistics file of hpa-merge ({reason}")
    assert sentence.endswith("), and nothing else is overwritten: give another path, or delete the file.")


def damage(stats: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    vectors, text = load_file(stats), described(stats)
    change(text, vectors)
    save_file(vectors, stats, {MARK: json.dumps(text)})


NAME = f"task:{O_PROJ}"
POSITIVE = f"({NAME} holds a value that is not finite and positive)"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text, v: v.update({NAME: v[NAME][1:].clone()}), f"({NAME} is not a float64 vector of the 64 columns)"),
        (lambda text, v: v.update({NAME: v[NAME].float()}), f"({NAME} is not a float64 vector of the 64 columns)"),
        (lambda text, v: v[NAME].__setitem__(3, float("nan")), POSITIVE),
        (lambda text, v: v[NAME].__setitem__(3, float("inf")), POSITIVE),
        (lambda text, v: v[NAME].__setitem__(3, -1.0), POSITIVE),
        (lambda text, v: v[NAME].__setitem__(3, 0.0), POSITIVE),
        (lambda text, v: v[NAME].mul_(2), "(its task half does not have the SHA-256 that it was written with)"),
        (lambda text, v: v.pop(NAME), "(its task half does not have the SHA-256 that it was written with)"),
        (lambda text, v: v.update({"task:x": v[NAME].clone()}), "(task:x belongs to no linear)"),
        (lambda text, v: text["task"]["tokens"].pop(O_PROJ), "(its task half does not name each linear with its"),
        (lambda text, v: text["task"]["tokens"].update({O_PROJ: -1}), "(its task half does not name each linear with"),
        (lambda text, v: text["task"]["visits"].append("lm_head"), "(its task half does not have the SHA-256"),
        (
            lambda text, v: text["task"]["visits"].append("nowhere"),
            "(its task half names units that the model does not have",
        ),
        (lambda text, v: text["task"]["visits"].reverse(), "(its task half does not have the SHA-256"),
        (lambda text, v: text.pop("task"), "('task')"),
        (lambda text, v: text.update(task=[]), "("),
        (lambda text, v: text["task"].update(fingerprint="x"), "("),
    ],
)
def test_a_damaged_file(change: Callable[..., None], reason: str, tiny: Tiny, tmp_path: Path) -> None:
    case, stats = tiny("llama"), tmp_path / "given"
    run(case, tmp_path / "first", stats)
    damage(stats, change)
    assert refused(case, tmp_path / "out", stats).startswith(
        f"{stats} is not a whole statistics file of hpa-merge {reason}"
    )


def test_where_the_file_may_not_lie(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, out = tiny("gpt2").copied_to(tmp_path), tmp_path / "out"
    (tmp_path / "link").symlink_to(case.old / "link")
    for stats, folder in (
        (case.old / "stats", case.old),
        (case.new / "sub" / "stats", case.new),
        (tmp_path / "x" / ".." / "old" / "stats", case.old),
        (tmp_path / "link", case.old),
    ):
        assert refused(case, out, stats) == (
            f"the statistics {stats} would lie in the input {folder}, and inputs are never written to: "
            "choose a path outside of it."
        )
    for place in ("out", "out.partial", "out.partial.journal", "out.replaced"):
        for stats in (tmp_path / place, tmp_path / place / "stats"):
            assert refused(case, out, stats) == (
                f"the statistics {stats} would lie in {tmp_path / place}, which belongs to OUT: "
                "choose a path outside of it."
            )
    stats = tmp_path / "nowhere" / "stats"
    assert refused(case, out, stats) == (
        f"the statistics {stats} cannot be written, because the folder {stats.parent} does not exist: create it first."
    )
    folder = tmp_path / "locked"
    folder.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != folder and real(path, mode))  # root may run this
    assert refused(case, out, folder / "stats") == (
        f"the statistics {folder / 'stats'} cannot be written, because you may not write to {folder}: "
        "choose another place."
    )


def test_a_link_stays_one(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "stats")
    run(tiny("gpt2"), tmp_path / "out", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert described(tmp_path / "folder" / "stats")["format"] == 1
