"""The table of rules: complete, read by everything else, and known by name to nothing else."""

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
from cases import TinyCase
from package_files import FILES, ROOT

from hpa_merge.config import CalibrationOptions, HPAConfig, OutOptions, calibration_of, option_fields
from hpa_merge.methods import RULES, Method, RuleOptions, find_rule, users
from hpa_merge.report.records import LinearRecord

REPOSITORY = Path(__file__).parents[2]

WORDS = {"linear", "blocks", "energy"}
"""Names that mean something else too: what a row of a table is, a field of the report, a heading."""


def known_rules(node: ast.AST) -> set[str]:
    """The rules' names that an expression shows that it knows."""
    names = {rule.name for rule in RULES}
    if isinstance(node, ast.Constant):
        return {node.value} & (names - WORDS) if isinstance(node.value, str) else set()
    inside = {each.value for each in ast.iter_child_nodes(node) if isinstance(each, ast.Constant)} & names
    if isinstance(node, ast.Dict | ast.Tuple | ast.List | ast.Set):  # a list of rules, or a table of our own
        return inside if len(inside) > 1 else set()
    if isinstance(node, ast.Compare | ast.Call):  # config.method == "linear", given.get("method", "linear")
        return inside if "method" in ast.unparse(node) else set()
    return set()


def test_nothing_else_knows_a_rules_name() -> None:
    for file in FILES:
        if file.parts[0] != "methods":
            for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
                assert not known_rules(node), f"{file}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize(
    "text",
    [
        'config.method == "linear"',
        'options.get("method", "blocks")',
        '{"linear": 1, "energy": 2}',
        '("blocks", "energy")',
        'x = "safe-delta"',
    ],
)
def test_that_would_be_seen(text: str) -> None:
    assert any(known_rules(node) for node in ast.walk(ast.parse(text)))


def test_the_table_is_whole() -> None:
    names = [rule.name for rule in RULES]
    assert get_args(Method) == tuple(names)
    assert len({*names}) == len(names)
    own = [item.name for item in fields(RuleOptions) if item.name != "method"]
    assert sorted({name for rule in RULES for name in rule.options}) == sorted(own)
    recorded = {item.name for item in fields(LinearRecord)}
    for rule in RULES:
        assert find_rule(rule.name) is rule
        assert {*rule.sets} <= {"safety", "task"}
        assert {*rule.of_samples} <= recorded
        assert not rule.of_samples or rule.sets
        assert rule.does
        assert rule.paper
        assert bool(rule.base) == ("compensation" in rule.options)
        assert HPAConfig(method=rule.name).takes  # type: ignore[arg-type]


def test_every_file_of_a_rule_is_in_the_table() -> None:
    shared = {"__init__", "applying", "columns", "rule", "surgery", "weight", "what_if"}
    files = {file.stem for file in FILES if file.parts[0] == "methods"} - shared
    modules = [importlib.import_module(f"hpa_merge.methods.{name}") for name in sorted(files)]
    assert sorted(module.RULE.name for module in modules) == sorted(rule.name for rule in RULES)


def test_an_option_belongs_to_the_calibration_run_or_to_one_out() -> None:
    run, out = ({item.name for item in fields(part)} for part in (CalibrationOptions, OutOptions))
    assert not run & out
    assert [*option_fields()] == [item.name for item in fields(HPAConfig)]
    assert run | out == {*option_fields()}
    assert not any(users(name) for name in run)
    config = HPAConfig(method="linear", weight=0.25, damping=0.5, seed=7)
    assert config.calibration == CalibrationOptions(damping=0.5, seed=7)
    assert calibration_of({"a": config, "b": HPAConfig(damping=0.5, seed=7)}) == config.calibration


def test_the_rules_are_read_without_torch() -> None:
    script = "import sys, hpa_merge.config; print(sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    assert _run(REPOSITORY, "-c", script) == "[]\n"


def test_the_documentation_has_the_table() -> None:
    script = REPOSITORY / "docs" / "rules.py"
    done = subprocess.run([sys.executable, script, "--check"], env=_environment(REPOSITORY), check=False)
    assert done.returncode == 0, "python docs/rules.py writes it anew"


@pytest.mark.parametrize("name", [name for name in option_fields() if name != "method"])
def test_the_documentation_has_every_option(name: str) -> None:
    pages = "".join((REPOSITORY / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("options", "methods"))
    flag = name.replace("_", "-")
    assert f"--{flag}" in pages or f"--no-{flag}" in pages


# --- a rule of one's own ---

RULE = '''
"""Columns of steepest safety: those of largest ``e_j^power / [H_s⁻¹]_jj`` are restored."""

from __future__ import annotations

from dataclasses import dataclass

from hpa_merge.methods import hpa
from hpa_merge.methods.rule import NOT_NEGATIVE, Rule, option
from hpa_merge.methods.weight import Adapted, Redone, Weight


@dataclass(frozen=True)
class Options:
    steepness: float = option(0.5, "steep: the power of the energy.", NOT_NEGATIVE)


class Reads(Options, hpa.Options):
    pass


def adapt(weight: Weight, options: Reads) -> Adapted:
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import adapt_columns, budget, largest

    n_restored = budget(weight, options)
    score = weight.update.energy ** options.steepness / weight.diagonal["safety"].cpu()
    return adapt_columns(weight, options, Selection(largest(score, n_restored), n_restored))


def check(weight, options, said, found) -> Redone:
    from hpa_merge.core import Selection
    from hpa_merge.methods.columns import budget, check_columns

    n_restored, restored = budget(weight, options), said["restored"]
    wrong = [] if int(restored.sum()) == n_restored else [f"{n_restored} columns have to be restored."]
    return check_columns(weight, options, Selection(restored, n_restored), said, wrong)


RULE = Rule(
    name="steep",
    does="the steepest columns are restored",
    paper="steepness ([Nobody](https://example.org/steep))",
    sets=("safety",),
    options=(*hpa.STEP, "steepness"),
    adapt=adapt,
    check=check,
    by_columns=True,
    computes=True,
    of_samples=("restored",),
    share=hpa.share,
)
'''

ROW = (
    ("    safe_delta,\n", "    safe_delta,\n    steep,\n"),
    ('"random", "energy"\n', '"random", "energy", "steep"\n'),
    ("    control_energy.RULE,\n", "    control_energy.RULE,\n    steep.RULE,\n"),
    ("class RuleOptions(\n", "class RuleOptions(\n    steep.Options,\n"),
)


@pytest.fixture(scope="module")
def with_steep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, with one more file and one more row."""
    folder = tmp_path_factory.mktemp("steep")
    for part in ("hpa_merge", "docs"):
        shutil.copytree(REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    methods = folder / "hpa_merge" / "methods"
    (methods / "steep.py").write_text(RULE.lstrip(), encoding="utf-8")
    table = (methods / "__init__.py").read_text(encoding="utf-8")
    for before, after in ROW:
        assert table.count(before) == 1
        table = table.replace(before, after)
    (methods / "__init__.py").write_text(table, encoding="utf-8")
    return folder


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}


def _run(folder: Path, *arguments: object) -> str:
    """What a Python that finds the package in ``folder`` prints."""
    words = [sys.executable, *map(str, arguments)]
    done = subprocess.run(words, env=_environment(folder), capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_rule_is_on_the_command_line(with_steep: Path) -> None:
    text = " ".join(_run(with_steep, "-m", "hpa_merge", "--help").split())
    assert (
        "compared with: regmean, cgm, null-space, linear, safe-delta, model-tailor, blocks, random, energy, steep."
        in text
    )
    assert "Method steep: --steepness FLOAT The power of the energy. [default: 0.5]" in text
    assert "[hpa, regmean, cgm, null-space, safe-delta, steep: required]" in text


def test_a_new_rule_is_in_the_documentation(with_steep: Path) -> None:
    _run(with_steep, "docs/rules.py")
    step = "`--no-orthogonal`, `--orthogonal-by` (matrix), `--depth-range` (zero-based)"
    options = f"`--p-max` (15), `--p-min` (5), {step}, `--steepness` (0.5)"
    row = f"| `steep` | the steepest columns are restored | {options} | safety | no |\n"
    assert row in (with_steep / "docs" / "methods.md").read_text(encoding="utf-8")


def test_a_new_rules_options_are_checked(with_steep: Path) -> None:
    script = """if True:
        from hpa_merge import HPAConfig
        from hpa_merge.errors import ConfigError
        for options in ({"steepness": -1.0, "method": "steep"}, {"steepness": 1.0}, {"method": "steep", "weight": 0.1}):
            try:
                HPAConfig.from_mapping(options)
            except ConfigError as error:
                print(error)
    """
    assert _run(with_steep, "-c", script).splitlines() == [
        "steepness is -1.0: it has to be at least 0.",
        "steepness is 1.0 and the method hpa does not use it: leave it out, or choose steep.",
        "weight is 0.1 and the method steep does not use it: leave it out, or choose linear.",
    ]


@pytest.mark.gate
def test_a_new_rule_merges(with_steep: Path, tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    """Plan, OUT, report, card and page, a sweep by YAML, and both ways of verifying."""
    case, out = tiny("llama"), tmp_path / "out"
    files = ["--safety-calib", str(case.safety)]
    settings, runs = tmp_path / "settings.yaml", tmp_path / "runs"
    settings.write_text("- {name: half}\n- {name: one, steepness: 1}\n- {name: control, method: energy}\n")
    merging = [str(case.old), str(case.new), *files, "--method", "steep"]
    calls = (
        [*merging, "-o", str(out), "--dry-run"],
        [*merging, "-o", str(out), "--steepness", "2"],
        ["verify", str(out), "--old", str(case.old), "--new", str(case.new)],
        ["verify", str(out), "--old", str(case.old), "--new", str(case.new), *files],
        ["sweep", merging[0], merging[1], str(settings), *merging[2:], "-o", str(runs)],
    )
    script = tmp_path / "calls.py"
    script.write_text(
        "import json, sys\nfrom hpa_merge.cli import main\nsys.stderr = sys.stdout\n"
        "if __name__ == '__main__':\n"
        "    for call in json.loads(sys.argv[1]):\n"
        "        try:\n            main(call)\n"
        "        except SystemExit as end:\n            assert not end.code, (call, end.code)\n"
        "        print('=====')\n"
    )
    plan, merged, claims, rerun, swept, _ = _run(with_steep, script, json.dumps(calls)).split("=====\n")
    assert "share" in plan
    assert "15.0%" in plan
    assert "restored by steep" in merged
    assert "which columns were restored relies on the report (restored): give --safety-calib" in " ".join(
        claims.split()
    )
    assert "are not" not in rerun
    assert "control" in swept

    report = json.loads((out / "hpa_report.json").read_text(encoding="utf-8"))
    assert report["config"]["method"] == "steep"
    assert report["config"]["steepness"] == 2.0
    assert report["task"] is None
    adapted = [record for record in report["linears"] if record["outcome"] == "adapted"]
    assert adapted
    assert all(record["restored"] and record["share"] and record["safety_tokens"] for record in adapted)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "The method is steepness ([Nobody](https://example.org/steep))" in card
    assert "`steepness = 2`" in card
    assert "--method steep --steepness 2" in card
    page = (out / "hpa_report.html").read_text(encoding="utf-8")
    assert "--steepness" in page
    found: dict[str, Any] = {
        name: json.loads((runs / name / "hpa_report.json").read_text(encoding="utf-8")) for name in ("half", "control")
    }
    assert {name: each["config"]["method"] for name, each in found.items()} == {"half": "steep", "control": "energy"}
