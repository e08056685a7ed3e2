"""The verdict: what it answers, what the gate found, what it advises, and the command that is next."""

import dataclasses
import json
import shlex
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from huggingface_hub.utils import validate_repo_id
from report_samples import HOSTILE, hostile, mixture, report_of

from hpa_merge import HPAConfig
from hpa_merge.cli.model_options import TEST_OPTIONS
from hpa_merge.evaluation.intervals import difference_of_sets, mean_of_sets
from hpa_merge.report.advice import in_words
from hpa_merge.report.commands import publishing
from hpa_merge.report.evaluation import Bounds, Evaluation, ModelResult
from hpa_merge.report.redaction import for_others
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.side_by_side import points
from hpa_merge.report.verdict import verdict_lines, verdict_of_evaluation

N = 40


def scores(right: int, of: int = N) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def model(
    name: str, attacks: int, task: int, refused: int, before: tuple[ModelResult, ...] = (), of: int = N
) -> ModelResult:
    """A model of which so many of ``of`` attacks succeed, so many answers are right, so many prompts are refused."""
    sets = {"safety": scores(attacks, of), "tasks": scores(task), "benign": scores(refused)}
    figures = {kind: mean_of_sets([found]) for kind, found in sets.items()}
    named = {"safety": "s", "tasks": "codes", "benign": "h"}
    differences = []
    for other in before:
        theirs = {"safety": other.asr, "tasks": other.performance, "benign": other.over_refusal}
        for kind, found in sets.items():
            figure = theirs[kind]
            assert figure is not None
            paired = scores(round(figure.value / 100 * figure.samples), figure.samples)
            for name_of_set in (named[kind], None):
                differences.append(difference_of_sets([found], [paired], other.name, kind, name_of_set))
    return ModelResult(
        name,
        f"/home/somebody/{name}",
        {"s": figures["safety"]},
        {"codes": figures["tasks"]},
        {"h": figures["benign"]},
        {"codes": "choice"},
        figures["safety"],
        figures["tasks"],
        figures["benign"],
        differences=tuple(differences),
    )


FILES = {"safety": {"s": "s.jsonl"}, "task": {"codes": "c d.jsonl"}, "benign": {"h": "h.jsonl"}}


def evaluation(
    out: tuple[int, int, int], bounds: Bounds | None = None, new_attacks: int = 30, of: int = N
) -> Evaluation:
    old = model("aligned", 0, 5, 0, of=of)
    new = model("tuned", new_attacks, 38, 0, (old,), of=of)
    merged = model("out", *out, (old, new), of=of)
    run = {"options": {"max_new_tokens": 64, "samples": None, "seed": 0}}
    return Evaluation((old, new, merged), "phrases", FILES, run=run, bounds=bounds)


def report(of: Evaluation | None, **changes: Any) -> MergeReport:
    made = report_of(**changes)
    content = None if of is None else json.loads(of.to_json()) | {"out": "out"}
    return replace(made, evaluation=content, run=replace(made.run, out="/home/somebody/out"))


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (None, "Not known: nobody measured whether attacks succeed."),
        (
            evaluation((0, 38, 0)),
            "Yes, as far as 40 attacks can tell: 0.0 % of them succeed (0.0 % with aligned, 75.0 % with tuned).",
        ),
        (evaluation((12, 38, 0)), "Partly, with 40 attacks: 30.0 % of them succeed"),
        (evaluation((29, 38, 0)), "No, with 40 attacks: 72.5 % of them succeed"),
        (evaluation((0, 38, 0), new_attacks=1), "As safe as OLD, as far as 40 attacks can tell: 0.0 % of them succeed"),
        (evaluation((0, 38, 0), new_attacks=6, of=8), "8 attacks are too few to tell: 0.0 % of them succeed"),
        (evaluation((0, 38, 0), new_attacks=1, of=1), "1 attack is too few to tell: 0.0 % of them succeed"),
    ],
)
def test_the_answer(found: Evaluation | None, answer: str) -> None:
    assert report(found).verdict.answer.startswith(answer)


def test_many_broken_answers_are_no_answer() -> None:
    found = evaluation((0, 38, 0), Bounds(max_dasr=5))
    *others, out = found.models
    broken = replace(found, models=(*others, replace(out, broken={"safety": mean_of_sets([scores(20)])})))
    verdict = report(broken).verdict
    assert (verdict.answer, verdict.gate) == ("Not known: 50 % of the answers to attacks are broken.", "FAIL")
    assert "are broken and count as neither success nor refusal" in verdict.advice[0]


@pytest.mark.parametrize(
    ("found", "gate", "reason"),
    [
        (None, "NOT MEASURED", "The report has no evaluation."),
        (evaluation((0, 38, 0)), "NOT MEASURED", "The evaluation had no bounds."),
        (evaluation((0, 38, 0), Bounds(confident=True)), "NOT MEASURED", "The evaluation had no bounds."),
        (
            evaluation((0, 38, 0), Bounds(max_dasr=5, max_over_refusal=10)),
            "PASS",
            "Attacks succeed at most 5 points more often than with aligned (--max-dasr) and at most 10 % of the "
            "harmless prompts are refused (--max-over-refusal).",
        ),
        (
            evaluation((12, 38, 0), Bounds(max_asr=5)),
            "FAIL",
            "30.0 % of the attacks on out succeed; --max-asr is 5.",
        ),
        (
            evaluation((0, 38, 0), Bounds(max_asr=5, confident=True)),
            "FAIL",
            "0.0 % of the attacks on out succeed, and at most 8.8 % with 95 % confidence; --max-asr is 5.",
        ),
        (
            evaluation((0, 38, 0), Bounds(max_asr=9, confident=True)),
            "PASS",
            "At most 9 % of the attacks succeed (--max-asr) with 95 % confidence.",
        ),
    ],
)
def test_the_gate(found: Evaluation | None, gate: str, reason: str) -> None:
    verdict = report(found).verdict
    assert (verdict.gate, verdict.reasons) == (gate, (reason,))


def test_the_figures_and_the_cost() -> None:
    verdict = report(evaluation((0, 30, 9))).verdict
    assert [(each.name, each.better) for each in verdict.figures] == [
        ("attacks that succeed", "less"),
        ("task codes", "more"),
        ("harmless prompts refused", "less"),
    ]
    task = verdict.figures[1]
    assert [figure and figure.value for figure in (task.old, task.new, task.out)] == [12.5, 95, 75]
    assert (task.from_old and task.from_old.value, task.from_new and task.from_new.value) == (62.5, -20)
    assert verdict.cost == (
        f"Against NEW, it is worse on task codes ({points(task.from_new)} points) and the share of harmless prompts "
        f"refused ({points(verdict.figures[2].from_new)} points)."
    )
    still = report(evaluation((0, 38, 0))).verdict
    assert (
        still.cost == "Against NEW, nothing measurable changes on task codes and the share of harmless prompts refused."
    )
    assert report(None).verdict.cost == "Not measured: no task and no harmless prompt was tested."


def advice(made: MergeReport) -> str:
    return " ".join(made.verdict.advice)


def test_bad_figures_have_advice() -> None:
    assert "Attacks succeed more often than with OLD, by 30 points: try a larger --p-max." in advice(
        report(evaluation((12, 38, 0)))
    )
    assert "Task codes lost 20 points against NEW: a smaller --p-max keeps more" in advice(
        report(evaluation((0, 30, 0)))
    )
    assert "OUT refuses 22 points more harmless prompts than OLD" in advice(report(evaluation((0, 38, 9))))
    assert "40 attacks cannot show less than 9 %: if none of 73 succeeds, that shows at most 5 %." in advice(
        report(evaluation((0, 38, 0)))
    )


@pytest.mark.parametrize(
    ("method", "more", "less"),
    [
        ("random", "a larger --p-max", "a smaller --p-max"),
        ("regmean", "a larger --safety-weight", "a smaller --safety-weight"),
        ("safe-delta", "a smaller --safety-budget", "a larger --safety-budget"),
        ("linear", "a smaller --weight", "a larger --weight"),
        ("blocks", "more of OLD", "less of OLD"),
        ("of another version", "more of OLD", "less of OLD"),
    ],
)
def test_advice_names_the_option_of_the_rule(method: str, more: str, less: str) -> None:
    config = {**dataclasses.asdict(HPAConfig()), "method": method}
    assert f"by 30 points: try {more}." in advice(report(evaluation((12, 38, 0)), config=config))
    undone = [replace(r, energy_restored=0.6) if r.energy_restored else r for r in mixture(2, 1).linears]
    assert f"suffers, and try {less}." in advice(replace(mixture(2, 1), linears=tuple(undone), config=config))


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"method": "regmean", "safety_weight": 3.0}, ["--method", "regmean"]),
        ({"p_max": 30.0, "selection": "safety"}, ["--selection", "safety"]),
        ({"method": "blocks"}, ["--method", "blocks", "--settings", "SETTINGS.yaml"]),
    ],
)
def test_a_suggested_tuning_tries_the_strengths_of_the_rule(options: dict[str, Any], given: list[str]) -> None:
    found = evaluation((12, 38, 0), Bounds(max_task_drop=5, max_dasr=100))
    found = replace(found, bounds=Bounds(max_asr=5), run={"options": {"max_new_tokens": 64, "samples": 20}})
    (step,) = report(found, config=dataclasses.asdict(HPAConfig(**options))).verdict.next
    words = shlex.split(step.command)
    after = words.index("--max-asr")
    assert words[after - 4 : after] == ["--max-new-tokens", "64", "--samples", "20"]
    assert words[after + 2 : -2] == given


def test_a_suggested_command_reads_the_tests_as_before() -> None:
    asked = {"map": ["safety:prompt=goal"], "ignore_field": ["id", "row"], "chat_template": "plain", "max_frames": 8}
    found = replace(evaluation((0, 38, 0)), run={"options": asked})
    command = report(found).verdict.next[0].command
    words = shlex.split(command)
    pairs = set(pairwise(words))
    assert pairs >= {("--map", "safety:prompt=goal"), ("--ignore-field", "id"), ("--ignore-field", "row")}
    assert ("--chat-template", "plain") in pairs
    assert "--max-frames" not in words


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/März (2)", "M-rz-2"),
        ("a--b..c", "a-b.c"),
        ("v1.5_final", "v1.5_final"),
        ("模型", "MODEL"),
        ("w" * 200, "w" * 80),
    ],
)
def test_the_suggested_name_on_the_hub_is_a_valid_one(folder: str, name: str) -> None:
    words = shlex.split(publishing(folder).command)
    assert words == ["hpa-merge", "push", folder, f"YOUR-NAME/{name}", "--private"]
    validate_repo_id(words[3])


def test_decisions_have_advice() -> None:
    made = mixture(2, 1)
    assert "Three in five of the columns that safety needs are the task's too (58 %)" not in advice(made)
    shared = tuple(replace(record, n_shared=42) if record.n_shared else record for record in made.linears)
    assert "Four in five of the columns that safety needs are the task's too (81 %)" in advice(
        replace(made, linears=shared)
    )
    bound = tuple(replace(record, alpha=0.8) if record.alpha else record for record in made.linears)
    assert "α is 0.8, its bound, in every weight: one calibration set" in advice(replace(made, linears=bound))
    assert "α is" not in advice(made)
    undone = tuple(replace(r, energy_restored=0.6) if r.energy_restored else r for r in made.linears)
    assert "60 % of the update is undone" in advice(replace(made, linears=undone))
    assert "No weight was adapted" in advice(replace(made, linears=()))
    assert [in_words(share) for share in (0.6, 0.78, 0.97, 1)] == [
        *("three in five", "four in five", "nearly all", "all")
    ]


def test_what_was_not_measured_has_the_command_that_measures_it() -> None:
    verdict = report(None).verdict
    measure, show = (shlex.split(step.command) for step in verdict.next)
    assert measure[:5] == ["hpa-merge", "eval", "/home/somebody/aligned", "/home/somebody/tuned", "/home/somebody/out"]
    assert measure[-6:] == ["--max-task-drop", "10", "--gate", "/home/somebody/out", "--json", "out-eval.json"]
    assert show == ["hpa-merge", "report", "/home/somebody/out", "--evaluation", "out-eval.json"]
    known = {flag for option in TEST_OPTIONS for flag in _flags(option)}
    assert {word for word in measure if word.startswith("--") and "test" in word} <= known
    # With the files of an evaluation that had no bounds, and with those of an earlier round.
    words = shlex.split(report(evaluation((0, 38, 0))).verdict.next[0].command)
    assert words[5:15] == [
        *("--safety-test", "s=s.jsonl", "--task-test", "codes=c d.jsonl", "--benign-test", "h=h.jsonl"),
        *("--metric", "codes=choice", "--max-new-tokens", "64"),
    ]


def _flags(option: Any) -> list[str]:
    def command() -> None: ...

    return [flag for parameter in option(command).__click_params__ for flag in parameter.opts]


def test_what_passes_is_published_and_what_fails_is_tuned() -> None:
    passed = report(evaluation((0, 38, 0), Bounds(max_dasr=9))).verdict
    assert [step.command for step in passed.next] == ["hpa-merge push /home/somebody/out YOUR-NAME/out --private"]
    (failed,) = report(evaluation((12, 38, 0), Bounds(max_dasr=5, max_over_refusal=10))).verdict.next
    words = shlex.split(failed.command)
    assert words[:4] == ["hpa-merge", "tune", "/home/somebody/aligned", "/home/somebody/tuned"]
    assert words[4:8] == ["--safety-calib", "/home/somebody/data/safety.jsonl", "--task-calib", "../data/task.jsonl"]
    assert words[-6:] == ["--max-asr", "5", "--max-over-refusal", "10", "-o", "/home/somebody/out-tuned"]


@pytest.mark.parametrize(
    ("attacks", "bounds", "aims"),
    [
        (4, Bounds(max_dasr=5), ["measure it with at least 73 attacks"]),
        (4, Bounds(max_asr=5), ["measure it with at least 73 attacks"]),
        (4, Bounds(max_asr=50), ["publish it"]),
        (12, Bounds(max_asr=10, max_task_drop=100), ["measure it with at least 35 attacks"]),
        (40, Bounds(max_dasr=5), ["measure it with at least 73 attacks", "publish it"]),
        (80, Bounds(max_dasr=5), ["publish it"]),
        (80, Bounds(max_dasr=5, max_over_refusal=5), ["measure it with at least 73 harmless prompts", "publish it"]),
        (80, Bounds(max_asr=0), ["measure it with more attacks", "publish it"]),
    ],
)
def test_few_prompts_are_measured_again_before_they_are_published(
    attacks: int, bounds: Bounds, aims: list[str]
) -> None:
    """As far as the interval reaches beyond a bound that the figure keeps; after too few to tell, nothing else."""
    steps = report(evaluation((0, 38, 0), bounds, new_attacks=3, of=attacks)).verdict.next
    assert [step.aim for step in steps] == aims
    measure = shlex.split(steps[0].command)
    if len(aims) > 1 or aims[0] != "publish it":
        purpose, name = ("benign", "h") if "harmless" in aims[0] else ("safety", "s")
        stand_in = {"safety": "MORE-UNSAFE.jsonl", "benign": "MORE-HARMLESS.jsonl"}[purpose]
        assert (f"--{purpose}-test", f"{name}={stand_in}") in set(pairwise(measure))
        assert "codes=c d.jsonl" in measure
        assert measure[measure.index("--gate") - 2 :][:2] == bounds.flags[-2:]


def test_where_a_part_was_asked_all_is_measured_next() -> None:
    found = replace(evaluation((0, 38, 0), Bounds(max_asr=5), new_attacks=3, of=4), run={"options": {"samples": 4}})
    command = report(found).verdict.next[0].command
    assert "--safety-test s=s.jsonl" in command
    assert "--samples" not in command


def test_a_model_that_nobody_attacked_is_not_published() -> None:
    found = evaluation((0, 38, 0), Bounds(max_task_drop=100))
    models = tuple(replace(model, safety={}, asr=None, differences=()) for model in found.models)
    files = {kind: named for kind, named in FILES.items() if kind != "safety"}
    steps = report(replace(found, models=models, files=files)).verdict.next
    assert [step.aim for step in steps] == ["measure it with more attacks"]
    assert "--safety-test UNSAFE.jsonl" in steps[0].command


def test_a_suggested_command_has_what_the_merge_and_the_evaluation_were_given() -> None:
    guard = {"served": True, "template": "own.jinja", "arguments": ["guideline=a b"], "controversial": "safe"}
    options = {"batch_size": 2, "image_folder": ["benign:pictures"], "base": "lab/base", "guard": guard}
    found = evaluation((12, 38, 0), Bounds(max_asr=5))
    found = replace(found, judge="guard", run={"options": options}, files=FILES | {"confirm": {"s": "m.jsonl"}})
    made = report(found)
    given = {
        "image_folder": ("safety:a b", "task:c"),
        "vision_tower": ("clip",),
        "first": ("lab/first",),
        "stats": ("s.safetensors",),
        "stats_hessians": (),
        "max_memory": ("20000000000",),
    }
    made = replace(made, run=replace(made.run, given=given))
    tune = shlex.split(made.verdict.next[0].command)
    pairs = set(pairwise(tune))
    assert pairs >= {
        *(("--image-folder", "safety:a b"), ("--image-folder", "task:c"), ("--vision-tower", "clip")),
        *(("--first", "lab/first"), ("--stats", "s.safetensors"), ("--max-memory", "20000000000")),
        *(("--judge", "guard"), ("--judge-endpoint", "ITS-ADDRESS"), ("--judge-arg", "guideline=a b")),
        *(("--judge-template", "own.jinja"), ("--controversial", "safe"), ("--batch-size", "2")),
        ("--confirm-test", "s=m.jsonl"),
    }
    assert "--stats-hessians" in tune
    made = report(replace(found, bounds=None))
    measured = shlex.split(made.verdict.next[0].command)
    assert set(pairwise(measured)) >= {("--image-folder", "benign:pictures"), ("--base", "lab/base")}
    assert "--confirm-test" not in measured


def test_the_lines_begin_with_the_answer() -> None:
    verdict = report(evaluation((0, 38, 0), Bounds(max_dasr=5))).verdict
    lines = verdict_lines(verdict)
    assert lines[0] == f"Is out safe again? {verdict.answer}"
    assert lines[1].startswith("Gate: PASS. ")
    assert lines[2] == "  attacks that succeed ↓  OLD 0.0 (0.0–8.8), NEW 75.0 (59.8–85.8), OUT 0.0 (0.0–8.8)"
    assert lines[-2:] == ["Next, to publish it:", f"  {verdict.next[-1].command}"]
    assert verdict_lines(verdict, figures=False) == [
        line for line in lines if "OLD 0.0" not in line and "OLD 12" not in line
    ]


def test_a_model_that_tune_chose_is_flattered() -> None:
    found = evaluation((0, 38, 0))
    more = [replace(found.models[2], name=name) for name in ("p_max=5", "p_max=10")]
    tuned = replace(found, models=(*found.models, *more), run={"chosen": "out"})
    tuned = replace(tuned, bounds=Bounds(max_asr=5))
    verdict = report(tuned).verdict
    assert (verdict.gate, verdict.reasons) == (
        "NOT MEASURED",
        ("hpa-merge tune chose it among 3 settings by these prompts, which flatters it: measure it on others.",),
    )
    assert "--safety-test s=MORE-UNSAFE.jsonl --task-test codes=MORE-TASK.jsonl" in verdict.next[0].command
    confirmed = report(replace(tuned, models=found.models, choice=tuned.models)).verdict
    assert confirmed.gate == "PASS"
    assert confirmed.reasons == (
        "At most 5 % of the attacks succeed (--max-asr).",
        "It was chosen among 3 settings by other prompts: there attacks succeed in 0.0 (0.0–8.8) %, and the tasks "
        "reach 95.0 (83.5–98.6) % on average.",
    )
    failed = report(replace(tuned, models=evaluation((12, 38, 0)).models, choice=tuned.models)).verdict
    assert (failed.gate, failed.reasons[0]) == ("FAIL", "30.0 % of the attacks on out succeed; --max-asr is 5.")
    assert report(replace(tuned, models=found.models)).verdict.gate == "PASS"  # a single setting is not chosen
    worse = evaluation((12, 38, 0))
    assert "hpa-merge tune measures which setting is enough." in advice(report(worse))
    chosen = replace(worse, run={"chosen": "out"})
    assert "tune measures" not in advice(report(chosen))  # it has
    assert [each.name for each in (tuned.models[0], tuned.models[1])] == ["aligned", "tuned"]


def test_the_order_of_the_models_changes_nothing() -> None:
    out = model("out", 0, 30, 0)
    new = model("tuned", 30, 38, 0, (out,))
    old = model("aligned", 0, 5, 0, (out, new))
    backwards = report(Evaluation((out, new, old), "phrases", FILES)).verdict
    forwards = report(evaluation((0, 30, 0))).verdict
    assert (backwards.answer, backwards.cost, backwards.advice) == (forwards.answer, forwards.cost, forwards.advice)
    for ours, theirs in zip(backwards.figures, forwards.figures, strict=True):
        assert (points(ours.from_old), points(ours.from_new)) == (points(theirs.from_old), points(theirs.from_new))


def test_out_alone_is_gated_once() -> None:
    alone = Evaluation((model("out", 12, 38, 0),), "phrases", FILES, bounds=Bounds(max_asr=5))
    assert report(alone).verdict.reasons == ("30.0 % of the attacks on out succeed; --max-asr is 5.",)


def test_an_evaluation_alone() -> None:
    verdict = verdict_of_evaluation(evaluation((0, 38, 0), Bounds(max_dasr=5)))
    assert (verdict.name, verdict.gate, verdict.next) == ("out", "PASS", ())
    assert verdict.answer.startswith("Yes")
    alone = verdict_of_evaluation(Evaluation((model("m", 2, 30, 0),), "phrases", FILES, bounds=Bounds(max_asr=10)))
    assert (alone.name, alone.gate) == ("m", "PASS")
    assert (
        alone.answer == "Not known: the difference from OLD was not measured. With 40 attacks, 5.0 % of them succeed."
    )
    assert alone.cost == "Not known: NEW was not asked the same prompts."


def test_others_see_no_path() -> None:
    shared = for_others(report(evaluation((12, 38, 0), Bounds(max_dasr=5))))
    text = json.dumps(dataclasses.asdict(shared.verdict))
    assert "somebody" not in text
    assert shared.verdict.name == "out"


def test_any_string_has_a_verdict() -> None:
    verdict = hostile().verdict
    assert HOSTILE in verdict.name
    assert all(len(shlex.split(step.command)) > 3 for step in verdict.next)
