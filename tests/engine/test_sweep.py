"""``hpa-merge sweep``: many OUTs from one read of the inputs, each as a merge of its own would have made it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import REPORT, TinyCase, content

import hpa_merge.methods.applying
from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.checkpoint import Checkpoint, CheckpointWriter, needed_bytes
from hpa_merge.core import Curvature
from hpa_merge.engine import memory as forecast
from hpa_merge.errors import CalibrationError, ConfigError, OutputError
from hpa_merge.model import PausedForwards

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {},
    "more": {"p_max": 40.0, "p_min": 20.0},
    "safety": {"selection": "safety", "orthogonal": False},
    "part": {"exclude": ("layers.1", "fc1", "h.0"), "uncalibrated": "old"},
    "alpha": {"alpha_min": 0.0, "alpha_max": 3.0, "include": ("layers", "h.")},
}


def configs(folder: Path, *names: str) -> dict[Path, HPAConfig]:
    return {folder / name: HPAConfig(**SETTINGS[name]) for name in names or SETTINGS}


def run(case: TinyCase, outs: dict[Path, HPAConfig], **options: Any) -> dict[Path, MergeReport]:
    return sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task, **options)


def alone(case: TinyCase, out: Path, **options: Any) -> dict[str, Any]:
    """What a merge of its own makes."""
    out.parent.mkdir(exist_ok=True)
    config = HPAConfig(**options)
    merge(case.old, case.new, out, safety_calib=case.safety, task_calib=case.task, config=config)
    return content(out)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often weights were measured, curvatures factored, samples started; and each tensor read."""
    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str, what: Callable[..., str]) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            counts[what(*arguments)] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    counted(hpa_merge.methods.applying, "measure_update", lambda *_: "measured")
    counted(PausedForwards, "start", lambda *_: "started")
    counted(Curvature, "inverse_diagonal", lambda *_: "factored")
    counted(Checkpoint, "stored_pieces", lambda self, info, *_: f"{self.role}: {info.name}")
    return counts


# --- the same bytes ---


@pytest.mark.parametrize("name", ["gpt2", "llava", pytest.param("phi3", marks=pytest.mark.gate)])
@pytest.mark.parametrize("stats", ["none", "computed", "read"])
def test_each_out_is_that_of_a_merge(name: str, stats: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny(name, "bfloat16")
    if name == "llava":
        (tmp_path / "text.jsonl").write_text('{"text": "no. that would hurt people."}\n')
        case = case._replace(safety=tmp_path / "text.jsonl")  # no linear of the vision tower is calibrated
    file = None if stats == "none" else tmp_path / "stats"
    if stats == "read":
        calibration = {"safety_calib": case.safety, "task_calib": case.task}
        merge(case.old, case.new, tmp_path / "first", **calibration, stats=file)
    reports = run(case, configs(tmp_path), stats=file)
    assert list(reports) == [tmp_path / name for name in SETTINGS]
    results = []
    for out in SETTINGS:
        results.append(content(tmp_path / out))
        assert results[-1] == alone(case, tmp_path / "alone" / out, **SETTINGS[out])
        assert json.loads(reports[tmp_path / out].to_json())["linears"] == results[-1][REPORT]["linears"]
    weights = [{name: bytes_ for name, bytes_ in files.items() if name.endswith(".safetensors")} for files in results]
    assert all(weights[i] != weights[j] for i in range(len(weights)) for j in range(i))
    assert not list(tmp_path.glob("*.partial*"))


def test_the_inputs_are_read_once_and_the_work_is_shared(tiny: Tiny, tmp_path: Path, calls: Counter[str]) -> None:
    case = tiny("llama")
    alone(case, tmp_path / "alone")
    of_one = calls.copy()
    calls.clear()
    run(case, configs(tmp_path, "paper", "more", "safety"))
    assert calls == of_one
    with Checkpoint.open(case.old, "OLD") as old, Checkpoint.open(case.new, "NEW") as new:
        names = {f"{each.role}: {name}" for each in (old, new) for name in each.tensors}
    assert {key: count for key, count in calls.items() if ":" in key} == dict.fromkeys(names, 1)
    assert calls["started"] == 2


def test_a_sweep_on_a_file_runs_no_sample(tiny: Tiny, tmp_path: Path, calls: Counter[str]) -> None:
    case, stats = tiny("llama"), tmp_path / "stats"
    run(case, configs(tmp_path, "paper"), stats=stats)
    calls.clear()
    run(case, configs(tmp_path, "more", "safety", "part"), stats=stats)
    assert calls["started"] == calls["factored"] == 0
    assert {count for key, count in calls.items() if ":" in key} == {1}


# --- interruptions ---


def interrupted(case: TinyCase, outs: dict[Path, HPAConfig], commits: int, **options: Any) -> None:
    """A sweep that is interrupted after so many commits: units times OUTs."""
    real, left = CheckpointWriter.commit, [commits]

    def commit(self: CheckpointWriter, entry: Any) -> None:
        real(self, entry)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecast, "QUEUE", 0)  # nothing is written behind: the run stops at that very commit
        patch.setattr(CheckpointWriter, "commit", commit)
        with pytest.raises(KeyboardInterrupt):
            run(case, outs, **options)


@pytest.mark.parametrize("stats", [False, True])
@pytest.mark.parametrize("commits", [1, 3, *(pytest.param(n, marks=pytest.mark.gate) for n in (2, 5, 9))])
def test_resumed(commits: int, stats: bool, tiny: Tiny, tmp_path: Path, calls: Counter[str]) -> None:
    """GPT-2 has three units with linears: after so many commits the two OUTs are at different units, or the same."""
    case, outs = tiny("gpt2"), configs(tmp_path, "paper", "more", "safety")
    whole = {}
    for name in ("paper", "more", "safety"):
        whole[tmp_path / name] = alone(case, tmp_path / "alone" / name, **SETTINGS[name])
    files = {"stats": tmp_path / "stats"} if stats else {}
    calls.clear()
    interrupted(case, outs, commits, **files)
    measured = calls["measured"]
    left = sorted(path.name for path in tmp_path.glob("*.partial"))
    assert len(left) == min(commits, 3)
    calls.clear()
    run(case, outs, resume=True, **files)
    assert {out: content(out) for out in outs} == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*files, "alone", "more", "paper", "safety"])
    again = {1: 4, 2: 4, 5: 3}  # the linears of the unit that not all OUTs had
    assert calls["measured"] + measured == 11 + again.get(commits, 0)
    assert calls["started"] == (0 if commits == 9 else 2)
    if stats:
        merge(case.old, case.new, tmp_path / "x", safety_calib=case.safety, task_calib=case.task, stats=tmp_path / "y")
        assert (tmp_path / "stats").read_bytes() == (tmp_path / "y").read_bytes()


def test_killed_between_two_outs(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Counter[str]
) -> None:
    """What is published by then is let be, and what is there but of another sweep is not."""
    case, outs = tiny("gpt2"), configs(tmp_path, "paper", "more", "safety")
    real = CheckpointWriter.publish

    def publish(self: CheckpointWriter, extra: Any) -> Path:
        if self.out.name == "more":
            raise KeyboardInterrupt
        return real(self, extra)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, "publish", publish)
        with pytest.raises(KeyboardInterrupt):
            run(case, outs, stats=tmp_path / "stats")
    there = (tmp_path / "paper").stat().st_ino
    changed = {**outs, tmp_path / "paper": HPAConfig(p_max=33.0)}
    with pytest.raises(OutputError, match=f"^OUT {tmp_path / 'paper'} exists already"):
        run(case, changed, stats=tmp_path / "stats", resume=True)
    with pytest.raises(OutputError, match=f"^OUT {tmp_path / 'paper'} exists already"):
        run(case, configs(tmp_path, "paper", "part"))
    calls.clear()
    reports = run(case, outs, stats=tmp_path / "stats", resume=True)
    assert (tmp_path / "paper").stat().st_ino == there
    assert calls["started"] == calls["measured"] == 0
    assert list(reports) == list(outs)
    for name in ("paper", "more", "safety"):
        assert content(tmp_path / name) == alone(case, tmp_path / "alone" / name, **SETTINGS[name])
    calls.clear()
    assert [report.linears for report in run(case, outs, resume=True).values()] == [
        report.linears for report in reports.values()
    ]
    assert calls["started"] == 0
    more = run(case, {**outs, **configs(tmp_path, "part")}, stats=tmp_path / "stats", resume=True)  # one setting more
    assert more[tmp_path / "paper"] == reports[tmp_path / "paper"]
    assert content(tmp_path / "part") == alone(case, tmp_path / "alone" / "part", **SETTINGS["part"])


def test_a_failure_leaves_no_out(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    (tmp_path / "text.jsonl").write_text('{"text": "no. that would hurt people."}\n')
    outs = configs(tmp_path, "paper") | {tmp_path / "strict": HPAConfig(uncalibrated="error")}
    with pytest.raises(CalibrationError, match="changed and no token of the safety set reaches it"):
        run(case._replace(safety=tmp_path / "text.jsonl"), outs)
    assert [path.name for path in tmp_path.iterdir()] == ["text.jsonl"]


# --- refusals ---


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("damping", (0.01, 0.1)),
        ("safety_samples", (8, 4)),
        ("task_samples", (128, 4)),
        ("max_length", (2048, 64)),
        ("seed", (0, 1)),
        ("device", ("auto", "cpu")),
    ],
)
def test_what_the_statistics_depend_on_is_the_same_in_all(
    option: str, values: tuple[Any, Any], tiny: Tiny, tmp_path: Path
) -> None:
    outs = {tmp_path / str(number): HPAConfig(**{option: value}) for number, value in enumerate(values)}
    with pytest.raises(ConfigError) as caught:
        run(tiny("gpt2"), outs)
    assert str(caught.value) == (
        f"{option} is {values[0]} in OUT {tmp_path / '0'} and {values[1]} in OUT {tmp_path / '1'}: the column "
        "statistics depend on it, and a sweep computes them once, so give it once, for all."
    )


def test_outs_that_touch(tiny: Tiny, tmp_path: Path) -> None:
    config = HPAConfig()
    for outs, sentence in (
        ({}, "a sweep needs at least one OUT: give the options of one."),
        (
            {tmp_path / "a": config, tmp_path / "x" / ".." / "a": config},
            f"OUT {tmp_path / 'a'} and OUT {tmp_path / 'x' / '..' / 'a'} would both use {tmp_path / 'a'}: "
            "choose another place.",
        ),
        (
            {tmp_path / "a": config, tmp_path / "a.partial": config},
            f"OUT {tmp_path / 'a'} and OUT {tmp_path / 'a.partial'} would both use {tmp_path / 'a.partial'}: "
            "choose another place.",
        ),
        (
            {tmp_path / "a": config, tmp_path / "a" / "b": config},
            f"OUT {tmp_path / 'a' / 'b'} would lie in OUT {tmp_path / 'a'}: choose another place.",
        ),
    ):
        with pytest.raises((ConfigError, OutputError)) as caught:
            run(tiny("gpt2"), outs)
        assert str(caught.value) == sentence
    assert not list(tmp_path.iterdir())


def test_room_for_all(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tiny("gpt2")
    with Checkpoint.open(case.new, "NEW") as new:
        size = needed_bytes(new)
    assert size == sum(path.stat().st_size for path in case.new.iterdir())
    usage = type("usage", (), {"free": 5 * size // 2})
    monkeypatch.setattr("hpa_merge.checkpoint.output.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError) as caught:
        run(case, configs(tmp_path, "paper", "more", "safety"))
    sizes = [f"{size / 1e3:.1f} kB", f"{2 * size / 1e3:.1f} kB", f"{2.5 * size / 1e6:.1f} MB"]
    assert str(caught.value) == (
        f"OUT {tmp_path / 'safety'} needs {sizes[0]}, the OUTs before it {sizes[1]}, and only {sizes[2]} are free "
        "there: free some space, or choose another disk."
    )
    assert not list(tmp_path.iterdir())


def test_one_number_is_the_only_difference(tiny: Tiny, tmp_path: Path) -> None:
    """More columns restored, from one file: they are nested, as the scores are the same."""
    case, outs = tiny("llama"), {tmp_path / str(p): HPAConfig(p_max=float(p), selection="safety") for p in (5, 15, 40)}
    reports = [*run(case, outs, stats=tmp_path / "stats").values()]
    restored = [
        {r.name: set(r.restored_columns) for r in report.linears if r.outcome == "adapted"} for report in reports
    ]
    assert all(restored[0][name] <= restored[1][name] <= restored[2][name] for name in restored[0])
    assert sum(map(len, restored[0].values())) < sum(map(len, restored[2].values()))
