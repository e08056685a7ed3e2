"""``--stats``: with a fitting file no sample runs and every byte is the same; either half is used again by itself."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import REPORT, TinyCase, assert_refused, content, status
from safetensors.torch import load_file, save_file
from statistics_runs import described, in_text, raising, run, started_roles  # noqa: F401 - a fixture

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.core import Curvature
from hpa_merge.model import MetaModel, PausedForwards
from hpa_merge.verification import verify

BOTH = {"safety": "computed", "task": "computed"}
Tiny = Callable[..., TinyCase]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each tensor was read, by role and name."""
    counts: Counter[tuple[str, str]] = Counter()
    real = Checkpoint.stored_pieces

    def pieces(self: Checkpoint, info: TensorInfo, **options: Any) -> Iterator[torch.Tensor]:
        counts[self.role, info.name] += 1
        return real(self, info, **options)

    monkeypatch.setattr(Checkpoint, "stored_pieces", pieces)
    return counts


def touched(folder: Path) -> None:
    """The same weights as at another time: another checkpoint, as far as a fingerprint can tell."""
    shard = next(folder.glob("*.safetensors"))
    times = shard.stat()
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns + 1))


# --- the same bytes ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpt2", ()),
        ("phi3", ()),
        ("qwen2_5_vl", ()),
        ("llava", ()),
        ("llava", ("safety",)),
        ("llava", ("task",)),
        ("llava", ("safety", "task")),
    ],
    ids=str,
)
def test_a_file_changes_no_byte(
    name: str, text: tuple[str, ...], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, stats = in_text(tiny(name, "bfloat16"), tmp_path, *text), tmp_path / "statistics"
    run(case, tmp_path / "without")
    report = run(case, tmp_path / "computed", stats)
    assert report.run.statistics == {**BOTH, "file": str(stats)}
    assert content(tmp_path / "computed") == content(tmp_path / "without")
    before = stats.read_bytes()
    for place in ("start", "run"):
        monkeypatch.setattr(PausedForwards, place, raising(AssertionError("a sample runs")))
    monkeypatch.setattr(MetaModel, "load", raising(AssertionError("a unit is loaded")))
    monkeypatch.setattr(Curvature, "inverse_diagonal", raising(AssertionError("a curvature is factored")))
    report = run(case, tmp_path / "read", stats)
    assert report.run.statistics == {"safety": "read", "task": "read", "file": str(stats)}
    assert report.warnings == run(case, tmp_path / "again", stats).warnings
    assert content(tmp_path / "read") == content(tmp_path / "without")
    assert report.count("adapted") > 5
    assert stats.read_bytes() == before
    assert verify(tmp_path / "read", case.old, case.new).problems == ()


@pytest.mark.parametrize(
    "options",
    [
        {"p_max": 30.0},
        {"p_max": 5.0, "p_min": 1.0, "focus_ratio": 3.0},
        {"selection": "safety", "orthogonal": False},
        {"alpha_min": 0.0, "alpha_max": 2.0, "saliency": "product"},
        {"exclude": ("q_proj", "fc1")},
    ],
    ids=str,
)
def test_other_options_on_one_file(options: dict[str, Any], tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    case, stats = tiny("llava"), tmp_path / "statistics"
    run(case, tmp_path / "first", stats)
    started.clear()
    run(case, tmp_path / "read", stats, **options)
    assert started == []
    run(case, tmp_path / "without", **options)
    assert started == ["OLD", "NEW"]
    assert content(tmp_path / "read") == content(tmp_path / "without")


def test_the_file_holds_every_linear_whatever_the_options_exclude(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    report = run(case, tmp_path / "a", tmp_path / "all")
    run(case, tmp_path / "b", tmp_path / "some", include=("layers.0",), p_max=40.0)
    assert (tmp_path / "all").read_bytes() == (tmp_path / "some").read_bytes()
    vectors = load_file(tmp_path / "all")
    assert report.count("unchanged") > 0
    assert vectors.keys() == {f"{half}:{record.name}" for half in ("safety", "task") for record in report.linears}
    for record in report.linears:
        for half in ("safety", "task"):
            vector = vectors[f"{half}:{record.name}"]
            assert (vector.dtype, tuple(vector.shape)) == (torch.float64, (record.columns,))
            assert bool((vector > 0).all())
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    for half in ("safety", "task"):
        tokens = described(tmp_path / "all")[half]["tokens"]
        assert all(tokens[record.name] == getattr(record, f"{half}_tokens") for record in adapted)


def test_what_is_read_where_the_file_fits(tiny: Tiny, tmp_path: Path, reads: Counter[tuple[str, str]]) -> None:
    case, stats = tiny("llama"), tmp_path / "statistics"
    report = run(case, tmp_path / "first", stats)
    assert set(reads.values()) == {1}
    reads.clear()
    run(case, tmp_path / "second", stats, p_max=20.0)
    assert set(reads.values()) == {1}
    assert {key for role, key in reads if role == "OLD"} == {record.name for record in report.linears}
    with Checkpoint.open(case.new, "NEW") as new:
        assert {key for role, key in reads if role == "NEW"} == set(new.tensors)


def test_a_machine_may_use_anothers_file(tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    case, stats, threads = tiny("gpt2"), tmp_path / "statistics", torch.get_num_threads()
    run(case, tmp_path / "first", stats)
    started.clear()
    torch.set_num_threads(threads + 2)
    try:
        run(case, tmp_path / "second", stats)
    finally:
        torch.set_num_threads(threads)
    assert started == []


# --- one half ---


def test_the_safety_half_is_used_when_new_changes(tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    case, stats = tiny("llava").copied_to(tmp_path), tmp_path / "statistics"
    run(case, tmp_path / "first", stats)
    before = described(stats), load_file(stats)
    shard = next(path for path in case.new.glob("*.safetensors") if any("mlp" in name for name in load_file(path)))
    tensors = {name: 1.01 * tensor if "mlp" in name else tensor for name, tensor in load_file(shard).items()}
    save_file(tensors, shard, {"format": "pt"})
    started.clear()
    report = run(case, tmp_path / "second", stats)
    assert started == ["NEW"]
    assert report.run.statistics == {"safety": "read", "task": "computed", "file": str(stats)}
    (note,) = report.warnings
    digests = [text["task"]["fingerprint"]["NEW"] for text in (before[0], described(stats))]
    assert note == (
        f"The statistics {stats} were made with NEW {digests[0]}, and now it is {digests[1]}: "
        "the task half has to be computed again."
    )
    run(case, tmp_path / "without")
    found, expected = content(tmp_path / "second"), content(tmp_path / "without")
    assert found[REPORT].pop("warnings") == [note]
    assert expected[REPORT].pop("warnings") == []
    assert found == expected
    after = described(stats), load_file(stats)
    assert after[0]["safety"] == before[0]["safety"]
    assert after[0]["task"]["digest"] != before[0]["task"]["digest"]
    assert all(torch.equal(before[1][name], after[1][name]) for name in before[1] if name.startswith("safety:"))
    started.clear()
    assert run(case, tmp_path / "third", stats).warnings == []
    assert started == []


@pytest.mark.parametrize("images", [True, False])
def test_the_task_half_is_used_when_the_safety_set_changes(
    images: bool, tiny: Tiny, tmp_path: Path, started: list[str]
) -> None:
    """Also where its samples visit a vision tower that the new safety samples do not."""
    case, stats = tiny("llava"), tmp_path / "statistics"
    run(case, tmp_path / "first", stats, safety_samples=2)
    started.clear()
    case = case if images else in_text(case, tmp_path, "safety")
    report = run(case, tmp_path / "second", stats, safety_samples=4)
    assert started == ["OLD"]
    assert report.run.statistics == {"safety": "computed", "task": "read", "file": str(stats)}
    run(case, tmp_path / "without", safety_samples=4)
    found, expected = content(tmp_path / "second"), content(tmp_path / "without")
    (note,) = set(found[REPORT].pop("warnings")) - set(expected[REPORT].pop("warnings"))
    assert "were made with safety samples " in note
    assert found == expected
    run(case, tmp_path / "alone", tmp_path / "other", safety_samples=4)
    assert stats.read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("change", ["damping", "version"])
def test_what_does_not_fit_is_written_over(
    change: str, tiny: Tiny, tmp_path: Path, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, stats = tiny("gpt2"), tmp_path / "statistics"
    run(case, tmp_path / "first", stats)
    before = stats.read_bytes()
    options: dict[str, Any] = {"damping": 0.1}
    expected = "damping 0.01, and now it is 0.1"
    if change == "version":
        options, expected = {}, "version of hpa-merge 0.0.0, and now it is 9.9.9"
        monkeypatch.setattr("hpa_merge.__version__", "0.0.0")
        run(case, tmp_path / "old version", stats)
        monkeypatch.setattr("hpa_merge.__version__", "9.9.9")
    started.clear()
    report = run(case, tmp_path / "second", stats, **options)
    assert started == ["OLD", "NEW"]
    assert report.warnings == [
        f"The statistics {stats} were made with {expected}: the {half} half has to be computed again."
        for half in ("safety", "task")
    ]
    assert stats.read_bytes() != before
    started.clear()
    run(case, tmp_path / "third", stats, **options)
    assert started == []


# --- the command ---


def test_the_command(make_call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("gpt2")
    stats = call.folder / "stats"

    def printed(*options: str) -> str:
        call.options = options
        assert status(call) == 0
        return "".join(capsys.readouterr().out.split())

    def line(text: str) -> str:
        return "".join(f"statistics {text}".split())

    computed = f"Both halves have to be computed, and {stats} is written."
    assert line(computed) in printed("--dry-run", "--stats", str(stats))
    assert not stats.exists()
    assert line(f"safety half computed, task half computed, in {stats}") in printed("--stats", str(stats))
    fits = line(f"The safety half of {stats} fits: its samples do not run.")
    assert fits in printed("--dry-run", "--overwrite", "--stats", str(stats))
    touched(call.new)
    plan = printed("--dry-run", "--overwrite", "--stats", str(stats))
    assert fits in plan
    assert line(f"The statistics {stats} were made with NEW ") in plan
    yaml = call.write("options.yaml", f"stats: {stats}\np-max: 20")
    call.options = ("--overwrite", "--config", str(yaml))
    assert status(call) == 0
    shown = capsys.readouterr()
    assert line(f"safety half read, task half computed, in {stats}") in "".join(shown.out.split())
    assert shown.err.startswith(f"Note: The statistics {stats} were made with NEW ")
    assert "statistics" not in printed("--overwrite")


def test_the_command_refuses(make_call: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("gpt2")
    stats = call.write("notes.txt", "of mine")
    call.options = ("--stats", str(stats))
    assert_refused(call, capsys, f"{stats} is not a whole statistics file of hpa-merge (")
    assert stats.read_text() == "of mine"


def test_another_chat_template_makes_other_statistics(tiny: Tiny, tmp_path: Path) -> None:
    """A half fits as long as the model is given the same, whatever the template's file is called."""
    case, stats = tiny("llama", "bfloat16"), tmp_path / "statistics"
    text = "{{ strftime_now('%d') }}{{ extra }}{% for m in messages %}{{ m.content }}{% endfor %}"
    for name in ("a.jinja", "b.jinja"):
        (tmp_path / name).write_text(text)
    run(case, tmp_path / "first", stats, chat_template=str(tmp_path / "a.jinja"))
    same = run(case, tmp_path / "same", stats, chat_template=str(tmp_path / "b.jinja"))
    assert same.run.statistics == {"safety": "read", "task": "read", "file": str(stats)}
    for number, options in enumerate(({"template_arg": ("extra=1",)}, {"template_date": "2031-03-01"}, {})):
        if not options:
            (tmp_path / "a.jinja").write_text(f"{text}.")
        options = {"chat_template": str(tmp_path / "a.jinja"), **options}
        report = run(case, tmp_path / f"other {number}", stats, **options)
        assert report.run.statistics == {**BOTH, "file": str(stats)}
        assert {name: report.config[name] for name in options} == options
