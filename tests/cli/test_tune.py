"""``hpa-merge tune``: several settings merged and measured, the best within the goal published.

The tiny models say nothing sensible, and none of it counts as broken. What a merge that restores everything says to
unsafe prompts counts as safe here, whatever it is, and what NEW says to the task's as right, so that the two ends of
the curve are known.
"""

import re
from pathlib import Path

import pytest
from adapters import lora, make_adapter
from cases import content
from evaluation_cases import jsonl, lines, status
from fake_trackers import install
from tunings import ONE, TWO, Job

from hpa_merge import HPAConfig, merge, verify
from hpa_merge.report.evaluation import read_evaluation

pytestmark = pytest.mark.gate


def test_the_best_within_the_goal_becomes_out(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = ["--json", job.folder / "r.json", "--plot", job.folder / "curve.svg"]
    assert job.run("--max-asr", 100, *outputs) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found = read_evaluation(job.folder / "r.json")
    old, new, *settings = found.choice
    assert [model.name for model in (old, new, *settings)] == ["old", "new", "all-old", "half", "all-new"]
    assert new.tasks["t"].value == 100
    by_name = {model.name: model for model in settings}
    assert by_name["all-new"].tasks == new.tasks  # nothing restored is NEW
    assert by_name["all-new"].asr == new.asr
    rates = [by_name[name].asr for name in ("all-new", "all-old")]
    assert [(figure.value, figure.samples) for figure in rates if figure] == [(100, 3), (0, 3)]
    assert by_name["all-old"].tasks["t"].value < 100
    assert found.run["chosen"] == "all-new"  # nothing is better on the tasks, and every attack may succeed
    assert [model.name for model in found.models] == ["old", "new", "all-new"]  # on the other prompts
    assert [(model.asr.samples, model.tasks["t"].samples) for model in found.models if model.asr] == [(3, 4)] * 3
    assert found.failures == ()
    assert [model.model for model in (found.models[-1], settings[-1])] == [str(job.out)] * 2  # by which report knows it
    assert job.left() == ["out"]

    alone = job.folder / "alone" / "out"  # a report has the name of its OUT
    alone.parent.mkdir()
    config = HPAConfig(p_max=0, p_min=0, orthogonal=False, device="cpu")
    merge(job.case.old, job.case.new, alone, safety_calib=job.case.safety, task_calib=job.case.task, config=config)
    assert content(job.out) == content(alone)

    table = [line.split() for line in printed.out.splitlines()]
    assert ["→", "all-new"] in [line[:2] for line in table]
    assert sum("→" in line[:1] and len(line) < 9 for line in table) == 1
    assert f"all-new is now {job.out}." in printed.out
    assert f"Is {job.out.name} safe again? " in printed.out
    assert "The choice on other prompts" in printed.out
    assert "It was chosen among 3 settings by other prompts: there attacks succeed in 100.0 (" in printed.out
    assert "Next, to publish it:" in printed.out
    drawn = (job.folder / "curve.svg").read_text()
    assert drawn.startswith("<svg")
    tracked = install(monkeypatch)
    assert job.run("--max-asr", 100, *outputs, "--overwrite", "-q", "--track", "mlflow") == 0
    assert [run.name for run in tracked.runs] == ["tune out", "old", "new", "all-old", "half", "all-new"]
    assert tracked.runs[0].parameters["chosen"] == "all-new"
    assert tracked.runs[3].parameters["p_max"] == "100"
    assert (job.folder / "curve.svg").read_text() == drawn


def test_the_card_has_the_text_of_news(job: Job, tmp_path: Path) -> None:
    job.case = job.case.copied_to(tmp_path / "case")
    (job.case.new / "README.md").write_text("---\nlicense: mit\n---\n# Ours\n\nTrained with care.\n")
    assert job.run("--max-asr", 100, "-q") == 0
    card = (job.out / "README.md").read_text()
    assert "license: mit" in card
    assert card.endswith("# Ours\n\nTrained with care.\n")
    assert card.count("Trained with care") == 1
    assert verify(job.out).problems == ()


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_new_may_be_an_adapter(job: Job) -> None:
    """Whatever base its configuration names: it is asked as an adapter on OLD."""
    adapter = make_adapter(job.case.old, "llama", lora(target_modules=["q_proj", "down_proj"]), job.folder / "adapter")
    config = (adapter / "adapter_config.json").read_text().replace(str(job.case.old), "somebody/elsewhere")
    (adapter / "adapter_config.json").write_text(config)
    job.case = job.case._replace(new=adapter)
    assert job.run("--max-asr", 100, "--json", job.folder / "r.json", "-q", settings=ONE) == 0
    old, new, setting = read_evaluation(job.folder / "r.json").models
    assert (old.name, new.name) == ("old", "adapter")
    assert (new.tasks, new.asr) == (setting.tasks, setting.asr)  # nothing restored is NEW


def sources(folder: Path) -> set[str]:
    """The prompts whose answers lie there."""
    return {line["source"] for file in folder.rglob("*.jsonl") for line in lines(file)}


def test_the_goal_binds(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("--max-asr", 100, "--keep-all", "--json", job.folder / "r.json", "-q", settings=TWO) == 0
    place = job.folder / "out.tune"
    assert sorted(path.name for path in place.iterdir()) == [".answers", ".confirming", ".hpa-merge.tune", "all-old"]
    assert sorted(path.name for path in (place / ".confirming").iterdir()) == ["all-new", "new", "old"]
    chose, confirmed = sources(place / ".answers"), sources(place / ".confirming")
    assert not chose & confirmed
    assert (len(chose), len(confirmed)) == (7, 7)
    bound = 99  # of which all-new falls short
    assert job.run("--max-asr", bound, "--resume", settings=TWO) == 2  # OUT is there
    assert "exists already: choose another folder, or replace it with --overwrite." in capsys.readouterr().err
    before = content(job.out)
    words = ["--max-asr", bound, "--resume", "--overwrite", "--json", job.folder / "s.json"]
    assert job.run(*words, settings=TWO) == 0
    found = read_evaluation(job.folder / "s.json")
    assert [bool(model.asr and model.asr.value > bound) for model in found.choice[2:]] == [False, True]
    assert found.run["chosen"] == "all-old"
    assert content(job.out) != before
    assert job.left() == ["out"]


def test_a_choice_that_is_not_confirmed(
    job: Job, told: list[tuple[str, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Ends with 3 and no OUT; nothing else is asked the prompts of the confirmation."""
    bad = [f"how do i do the other thing {n}?" for n in range(4)]
    judge = (job.folder / "own_judge.py").read_text().replace("return ", f"return prompt in {bad!r} or ")
    (job.folder / "own_judge.py").write_text(judge)
    file = jsonl(job.folder / "more.jsonl", *({"prompt": text} for text in bad))
    words = ["--max-asr", 10, "--confirm-test", f"s={file}", "--json", job.folder / "r.json"]
    assert job.run(*words, settings=TWO) == 3
    printed = capsys.readouterr()
    assert printed.err.strip() == (
        "Error: all-old keeps the goal on the prompts that chose it, and not on others, so no OUT was made: 100.0 % of "
        "the attacks on all-old succeed; --max-asr is 10. These prompts can confirm no second choice: give other ones "
        "with --confirm-test, and lower --max-asr, or choose with --confident."
    )
    found = read_evaluation(job.folder / "r.json")
    assert found.failures == ("100.0 % of the attacks on all-old succeed; --max-asr is 10.",)
    assert [model.name for model in found.models] == ["old", "new", "all-old"]
    assert [model.asr and model.asr.samples for model in found.models] == [4, 4, 4]
    assert [model.asr and model.asr.samples for model in found.choice] == [6, 6, 6, 6]
    assert found.files["confirm"] == {"s": str(file)}
    assert job.left() == []


def test_a_choice_that_cannot_be_confirmed(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """Is marked; with --confident it is refused before anything is merged."""
    assert job.run("--max-asr", 5, "--confident", settings=TWO) == 2
    assert "the 3 attacks that choose cannot show less than 56.1 % with 95 % confidence" in capsys.readouterr().err
    jsonl(job.safety, lines(job.safety)[0])
    assert job.run("--max-asr", 100, "--json", job.folder / "r.json", settings=TWO) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith(
        "Note: s has too few prompts to choose by some and to confirm on others, so the choice"
    )
    assert "Gate: NOT MEASURED. hpa-merge tune chose it among 2 settings by these prompts, which" in printed.out
    assert "--safety-test s=MORE-UNSAFE.jsonl --task-test t=MORE-TASK.jsonl" in printed.out
    found = read_evaluation(job.folder / "r.json")
    assert ([model.name for model in found.models], found.choice) == (["old", "new", "all-old", "all-new"], ())


def test_no_setting_keeps_the_goal(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("--max-asr", 0, settings=ONE) == 3
    printed = capsys.readouterr()
    assert printed.err == (
        "Error: no setting keeps the goal, and no OUT was made: try others with --settings, or allow more.\n"
    )
    assert "No setting has attack success at most 0 %." in printed.out
    assert job.left() == []


def test_the_default_settings(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.run("--max-asr", 100, "--dry-run", settings=None) == 0
    printed = capsys.readouterr().out
    assert all(f"p_max={share}" in printed for share in (5, 10, 15, 20, 30, 45))
    assert job.left() == []
    assert status("tune", "old", "new", "--safety-test", "s=s", "--task-test", "t=t", "--max-asr", 5) == 2
    assert "Missing option '-o' / '--output'." in capsys.readouterr().err


def test_the_best_of_several_methods(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    """From one gathering; the user's own settings of a method replace those that it would be tried at."""
    settings = """
- {name: gone, p-max: 100, p-min: 100, focus-ratio: 1, orthogonal: false}
- {name: mild, method: regmean, safety-weight: 0.5}
"""
    words = ["--methods", "hpa, regmean", "--methods", "linear", "--max-asr", 100, "--json", job.folder / "r.json"]
    assert job.run(*words, "--plot", job.folder / "curve.svg", settings=settings) == 0
    printed = capsys.readouterr().out
    found = read_evaluation(job.folder / "r.json")
    weights = ["0.9", "0.7", "0.5", "0.4", "0.3", "0.2"]
    methods = dict.fromkeys(("gone", "mild"), "hpa") | {"mild": "regmean"}
    methods |= dict.fromkeys((f"method=linear,weight={weight}" for weight in weights), "linear")
    assert [model.name for model in found.choice[2:]] == list(methods)
    assert {name: each["method"] for name, each in found.run["settings"].items()} == methods
    assert found.run["settings"]["mild"] == {"method": "regmean", "safety_weight": "0.5"}

    table = [[cell for cell in line.split() if cell != "→"][:2] for line in printed.splitlines()]
    assert all([method, name.removeprefix("method=linear,")] in table for name, method in methods.items())
    drawn = (job.folder / "curve.svg").read_text()
    assert all(f">{text}</text>" in drawn for text in ("hpa", "regmean", "linear", "gone", "mild", "weight=0.3"))

    reached = {model.name: model.performance.value for model in found.choice[2:] if model.performance}
    chosen = found.run["chosen"]
    assert reached[chosen] == max(reached.values())
    assert methods[chosen] != "hpa"  # which restores everything here
    words = re.search(r" is now .*\. A merge with (.*) makes the same\.", printed)[1].split()
    assert words[:2] == ["--method", methods[chosen]]
    assert f"-o out {' '.join(words)}" in (job.out / "README.md").read_text()
    inputs = ["--safety-calib", job.case.safety, "--task-calib", job.case.task]
    (job.folder / "alone").mkdir()
    assert status(job.case.old, job.case.new, "-o", job.folder / "alone" / "out", *inputs, *words, "-q") == 0
    assert content(job.folder / "alone" / "out") == content(job.out)
