"""``hpa-merge sweep`` as a command: what it makes, what it prints, and what it refuses in the list of settings."""

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Call
from fake_trackers import install
from ranks import on_ranks

from hpa_merge import HPAConfig, sweep
from hpa_merge.cli import main
from hpa_merge.cli.merging import outs_folder
from hpa_merge.errors import ConfigError
from hpa_merge.ranks import Group

REPORT = "hpa_report.json"


def command(call: Call, settings: str, *options: str) -> int | str | None:
    """The exit status of a sweep with the settings of a YAML file."""
    files = ["--safety-calib", call.safety, "--task-calib", call.task, "-o", call.folder / "runs", *options]
    path = call.folder / "settings.yaml"
    if settings:
        path.write_text(settings)
    try:
        main([str(word) for word in ("sweep", call.old, call.new, path, *files)])
    except SystemExit as end:
        return end.code
    return 0


YAML = """
- {}
- p-max: 10
  selection: safety
- {name: plain, orthogonal: false, include: [attn, c_fc]}
- {p_min: 1, exclude: c_proj}
"""
NAMES = ["default", "p_max=10,selection=safety", "plain", "p_min=1,exclude=c_proj"]


def test_the_command(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call, tracked = make_call("gpt2"), install(monkeypatch)
    runs = call.folder / "runs"
    assert command(call, YAML, "--dry-run", "--p-max", "20") == 0
    printed = capsys.readouterr().out
    assert not runs.exists()
    assert printed.rstrip().endswith("Nothing was written.")
    rows = [line.split() for line in printed.splitlines()]
    assert ["default", "11", "1", "0"] in rows
    assert ["plain", "7", "1", "4"] in rows or ["plain", "8", "1", "3"] in rows
    assert command(call, YAML, "--stats", str(call.folder / "stats"), "--p-max", "20", "--track", "trackio") == 0
    assert [run.name for run in tracked.runs] == ["runs", *(f"runs {name}" for name in NAMES)]
    printed = capsys.readouterr()
    assert printed.err == ""
    assert sorted(path.name for path in runs.iterdir()) == sorted(NAMES)
    found = [json.loads((runs / name / REPORT).read_bytes())["config"] for name in NAMES]
    assert [config["p_max"] for config in found] == [20, 10, 20, 20]
    assert [config["exclude"] for config in found] == [[], [], [], ["c_proj"]]
    rows = [line.split() for line in printed.out.splitlines()]
    assert [row[:2] for row in rows if row and row[0] in NAMES] == [
        [name, str(sum(r["outcome"] == "adapted" for r in json.loads((runs / name / REPORT).read_bytes())["linears"]))]
        for name in NAMES
    ]
    assert "4 folders in" in " ".join(printed.out.split())
    *_, aim, line = printed.out.splitlines()
    outs = [str(runs / name) for name in NAMES]
    assert aim == "Next, to compare them:"
    assert shlex.split(line)[:9] == ["hpa-merge", "eval", str(call.old), str(call.new), *outs, "--safety-test"]
    assert command(call, YAML, "--resume", "--p-max", "20") == 0
    assert command(call, YAML, "--p-max", "20", "-q") == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("", "{file} cannot be read (No such file or directory): give a YAML list of settings."),
        ("[p-max", "{file} is not YAML: "),
        ("[]", "{file} holds an empty list: write a list of settings, one per line, as in '- p-max: 10'."),
        ("p-max: 3", "{file} holds a dict: write a list of settings, one per line, as in '- p-max: 10'."),
        ("# none", "{file} holds nothing: write a list of settings, one per line, as in '- p-max: 10'."),
        ("- p-max", "{file}, setting 1 is a str: write options, as in '- p-max: 10'."),
        ("- {}\n- {p-mix: 3}", "{file}, setting 2 has no option 'p-mix' (did you mean p_min?): the options are "),
        ("- {}\n- {p-max: 101}", "{file}, setting 2: p_max is 101.0: it has to be a percentage between 0 and 100."),
        ("- {}\n- {p-max: high}", "{file}, setting 2: p_max is 'high': it has to be a number."),
        ("- {}\n- {}", "{file}, setting 2 has the name 'default', as setting 1 has: give each its own name."),
        ("- {name: a}\n- {name: a, p-max: 3}", "{file}, setting 2 has the name 'a', as setting 1 has: give each its"),
        ("- {name: ../a}", "{file}, setting 1 has the name '../a': it has to be a plain folder name."),
        ("- {name: 3}", "{file}, setting 1 has the name 3: it has to be a plain folder name."),
        ("- {name: ''}", "{file}, setting 1 has the name '': it has to be a plain folder name."),
        ("- {name: .a}", "{file}, setting 1 has the name '.a': it has to be a plain folder name."),
        (
            "- {include: a/b}",
            "{file}, setting 1 would have the name 'include=a/b', which is not a plain folder name: give",
        ),
        (
            "- {}\n- {damping: 0.5}",
            "{file}: damping is 0.01 in setting 1 and 0.5 in setting 2: the column statistics depend on it, and a "
            "sweep computes them once, so give it once, for all.",
        ),
        ("- {}\n" * 1001, "{file}: a sweep makes at most 1000 OUTs, and 1001 are asked for: split the settings."),
        ("- p-max: high\n" * 5000, "{file}: a sweep makes at most 1000 OUTs, and 5000 are asked for: split"),
        ("- {name: a}\n- {name: a.partial}", "OUT {runs}/a and OUT {runs}/a.partial would both use {runs}/a.partial: "),
    ],
)
def test_the_command_refuses(
    settings: str, sentence: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("gpt2")
    assert command(call, settings) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    expected = sentence.format(file=call.folder / "settings.yaml", runs=call.folder / "runs")
    assert printed.err.startswith(f"Error: {expected}")
    assert printed.err.count("\n") == 1
    assert not (call.folder / "runs").exists()


def test_from_python_no_more_are_taken(make_call: Callable[..., Call]) -> None:
    call = make_call("gpt2")
    outs = {call.folder / f"out{number}": HPAConfig() for number in range(1001)}
    with pytest.raises(ConfigError, match="at most 1000 OUTs, and 1001 are asked for"):
        sweep(call.old, call.new, outs, safety_calib=call.safety, task_calib=call.task)


def test_the_command_refuses_wrong_options_and_places(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("gpt2")
    assert command(call, "- {}", "--p-min", "20") == 2
    assert capsys.readouterr().err == (
        "Error: p_min is 20 and p_max is 15: lower p_min or raise p_max, so that p_min is not the greater.\n"
    )
    for folder in (call.old / "runs", call.new):
        assert command(call, "- {}", "-o", str(folder)) == 2
        assert capsys.readouterr().err == (
            f"Error: {folder} would lie in the input {call.old if folder.name == 'runs' else call.new}, and inputs are "
            "never written to: choose a folder outside of it.\n"
        )
    assert command(call, "- {}", "-o", str(call.folder / "no" / "runs")) == 2
    assert capsys.readouterr().err == (
        f"Error: the folder {call.folder / 'no' / 'runs'} cannot be made (No such file or directory): choose another "
        "place, or create it.\n"
    )
    (call.folder / "runs").mkdir()
    assert command(call, "- {}", "--dry-run") == 0
    assert (call.folder / "runs").is_dir()  # it was there
    main(["sweep", "--help"])
    assert "SETTINGS is a YAML list" in capsys.readouterr().out


def test_several_processes_leave_no_empty_folder(tmp_path: Path) -> None:
    """Also if the first one, which makes and removes it, is late."""
    runs = tmp_path / "runs"

    def work(rank: int) -> None:
        if rank == 0:
            time.sleep(0.3)
        with outs_folder(runs, []):
            assert runs.is_dir()
            Group.current().barrier()

    assert on_ranks(2, work, tmp_path) == [None, None]
    assert not runs.exists()
