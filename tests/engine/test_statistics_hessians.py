"""``--stats-hessians``: what a merge takes from two Hessians comes from a file too, and every byte is the same."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase, content
from mixtures import make, mixtral
from safetensors import safe_open
from statistics_runs import described, interrupt, raising

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.core import compromise, sequential
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import ConfigError, StatisticsError
from hpa_merge.model import PausedForwards
from hpa_merge.verification import verify

Tiny = Callable[..., TinyCase]

BOTH = ("safety", "task")

RULES: dict[str, dict[str, Any]] = {
    "one": {"method": "regmean"},
    "three": {"method": "regmean", "safety_weight": 3.0, "safety_fade": 0.5},
    "delta": {"method": "safe-delta", "safety_budget": 1000.0},
    "hpa": {},
}


def run(case: TinyCase, folder: Path, rules: dict[str, dict[str, Any]], **options: Any) -> dict[str, MergeReport]:
    folder.mkdir(exist_ok=True)
    outs = {folder / name: HPAConfig(**rule) for name, rule in rules.items()}
    reports = sweep(case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task, page=False, **options)
    return {out.name: report for out, report in reports.items()}


def found(folder: Path) -> dict[str, Any]:
    return {out.name: content(out) for out in sorted(folder.iterdir())}


def hessians(stats: Path) -> list[Path]:
    return sorted(stats.with_name(f"{stats.name}.hessians").iterdir())


def short(case: TinyCase, folder: Path) -> TinyCase:
    """With so few safety tokens that they take less room than a triangle."""
    (folder / "short.jsonl").write_text('{"text": "no. no."}\n')
    return case._replace(safety=folder / "short.jsonl")


def planned(case: TinyCase, stats: Path, method: str = "regmean", **options: Any) -> tuple[str, ...]:
    """What the plan of a merge says of the statistics."""
    keep = options.pop("stats_hessians", False)
    outs = {stats.parent / "planned": HPAConfig(method=method, **options)}
    request = MergeRequest.of(
        case.old, case.new, outs, safety_calib=case.safety, task_calib=case.task, stats=stats, stats_hessians=keep
    )
    (plan,) = preview(request).values()
    return plan.statistics


def kinds(stats: Path) -> set[int]:
    """The numbers of dimensions of what the files hold: tokens have two, triangles one."""
    found: set[int] = set()
    for path in hessians(stats):
        with safe_open(path, "pt") as file:
            found |= {len(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


@pytest.mark.parametrize("name", ["llama", pytest.param("mixtral", marks=pytest.mark.gate)])
def test_a_file_changes_no_byte(name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = tmp_path / "stats"
    case = short(tiny(name), tmp_path) if name == "llama" else make(mixtral, tmp_path / "case")
    factored: list[tuple[compromise.Compromise, float]] = []
    real = compromise.Compromise._routes_for

    def counted(self: compromise.Compromise, weight: float) -> Any:
        factored.append((self, weight))
        return real(self, weight)

    monkeypatch.setattr(compromise.Compromise, "_routes_for", counted)
    run(case, tmp_path / "without", RULES)
    said = planned(case, stats, stats_hessians=True)[-1]
    factored.clear()
    reports = run(case, tmp_path / "computed", RULES, stats=stats, stats_hessians=True)
    assert len(factored) == len(set(factored)) < 2 * reports["one"].count("adapted")  # for an input, not for a linear
    assert found(tmp_path / "computed") == found(tmp_path / "without")
    size = re.fullmatch(rf"Hessians of up to ([\d.]+) ([kM]B) are written to {stats}\.hessians\.", said)
    assert size
    most = float(size[1]) * {"kB": 10**3, "MB": 10**6}[size[2]] * 1.005  # it is rounded to three digits
    assert 0 < sum(path.stat().st_size for path in hessians(stats)) < most
    assert kinds(stats) == ({1, 2} if name == "llama" else {1})  # experts share the many tokens of their pool
    monkeypatch.setattr(PausedForwards, "start", raising(AssertionError("a sample runs")))
    reports = run(case, tmp_path / "read", RULES, stats=stats)
    assert reports["one"].run.statistics == {"safety": "read", "task": "read", "file": str(stats)}
    assert found(tmp_path / "read") == found(tmp_path / "without")
    files = {"safety_calib": case.safety, "task_calib": case.task, "stats": stats}
    assert verify(tmp_path / "read" / "three", case.old, case.new, **files).problems == ()


def test_when_hessians_are_needed_and_not_there(tiny: Tiny, tmp_path: Path) -> None:
    case, stats = tiny("llama"), tmp_path / "stats"
    with pytest.raises(StatisticsError) as raised:
        planned(case, stats)
    assert str(raised.value) == (
        f"the method regmean takes the Hessians themselves, and the statistics {stats} keep only the diagonal of H⁻¹: "
        "set stats_hessians to keep the Hessians too, which takes up to 618 kB of disk, or leave out the statistics."
    )
    for options, sentence in (
        ({"stats_hessians": True}, "stats_hessians keeps Hessians next to a statistics file: give stats too."),
        ({"stats": stats}, "the method safe-delta takes all of H⁻¹ with compensation_order sum"),
    ):
        rule = {"method": "safe-delta", "compensation_order": "sum"}
        with pytest.raises(ConfigError) as refused:
            run(case, tmp_path / "refused", {"sum": rule}, **options)
        assert str(refused.value).startswith(sentence)
    folder = stats.with_name("stats.hessians")
    folder.write_text("of mine")
    with pytest.raises(StatisticsError, match="and something else is in its place: choose another path"):
        planned(case, stats, "hpa")


def test_the_next_month_and_what_became_of_the_files(tiny: Tiny, tmp_path: Path) -> None:
    case, stats, one = tiny("llama"), tmp_path / "stats", {"one": RULES["one"]}
    run(case, tmp_path / "hpa", {"hpa": {}}, stats=stats)
    assert not stats.with_name("stats.hessians").exists()
    with pytest.raises(StatisticsError, match="set stats_hessians"):
        planned(case, stats)
    note = f"The statistics {stats} lack some Hessians: the {{}} half has to be computed again."
    assert planned(case, stats, stats_hessians=True)[:2] == tuple(map(note.format, BOTH))

    run(case, tmp_path / "first", one, stats=stats, stats_hessians=True)
    before = {path.name: path.read_bytes() for path in hessians(stats)}
    (mine := stats.with_name("stats.hessians") / "task-notes.safetensors").write_text("of mine")
    fits = tuple(f"The {half} half of {stats} fits: its samples do not run." for half in BOTH)
    assert planned(case, stats) == planned(case, stats, "hpa") == planned(case, stats, stats_hessians=True) == fits

    changed = {"one": RULES["one"] | {"task_samples": 2}}
    report = run(case, tmp_path / "second", changed, stats=stats, stats_hessians=True)["one"]
    assert report.run.statistics == {"safety": "read", "task": "computed", "file": str(stats)}
    after = {path.name: path.read_bytes() for path in hessians(stats) if path != mine}
    kept = before.keys() & after.keys()
    assert {name.partition("-")[0] for name in kept} == {"safety"}
    assert all(before[name] == after[name] for name in kept)
    assert len(after) == len(before) == 2 * len(kept)
    assert mine.read_text() == "of mine"

    path = max(hessians(stats), key=lambda path: path.stat().st_size)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StatisticsError, match=r"is not a whole statistics file of hpa-merge \(its SHA-256"):
        run(case, tmp_path / "damaged", changed, stats=stats)
    path.unlink()
    half = path.name.partition("-")[0]
    assert note.format(half) in planned(case, stats, task_samples=2, stats_hessians=True)


def test_a_resumed_run_keeps_what_was_written(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    options: dict[str, Any] = {
        "safety_calib": case.safety, "task_calib": case.task, "config": HPAConfig(method="regmean"),
        "stats_hessians": True, "page": False,
    }  # fmt: skip
    merge(case.old, case.new, tmp_path / "whole", stats=tmp_path / "a", **options)
    interrupt_hessians = dict(options)
    with pytest.MonkeyPatch.context() as patch:
        import statistics_runs

        patch.setattr(
            statistics_runs, "run",
            lambda _, out, stats, **given: merge(case.old, case.new, out, stats=stats, **interrupt_hessians),
        )  # fmt: skip
        interrupt(case, tmp_path / "out", tmp_path / "b", 3)
    merge(case.old, case.new, tmp_path / "out", stats=tmp_path / "b", resume=True, **options)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    written = [{path.name: path.read_bytes() for path in hessians(tmp_path / name)} for name in "ab"]
    assert written[0] == written[1]
    assert described(tmp_path / "a") == described(tmp_path / "b")


def test_the_reversed_factor_is_made_once_for_an_input(tiny: Tiny, tmp_path: Path) -> None:
    case, made = tiny("llama"), []
    real = sequential.reversed_factor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpa_merge.core.reversed_factor", lambda hessian: made.append(hessian) or real(hessian))
        report = run(case, tmp_path / "out", {"delta": RULES["delta"]})["delta"]
    assert 0 < len(made) < report.count("adapted")
    assert len({id(hessian) for hessian in made}) == len(made)
