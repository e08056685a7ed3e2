"""The prompts that confirm a choice: others than those that a setting is chosen by."""

from collections import Counter
from pathlib import Path

import pytest
from evaluation_cases import jsonl

from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.evaluation.confirming import Parts, confirming_files, split
from hpa_merge.evaluation.intervals import mean_of_sets
from hpa_merge.report.evaluation import Bounds
from hpa_merge.report.reachable import best_high, fewest

BOUNDS = Bounds(max_asr=5.0)
TURNS = ("from", "value")


def suite_of(folder: Path, **files: list[dict]) -> Suite:
    """``safety``, ``task`` and ``benign`` sets of these records, each named after what it is for."""
    paths = {name: {name: jsonl(folder / f"{name}.jsonl", *records)} for name, records in files.items()}
    return Suite.of(paths.get("safety", {}), paths.get("task", {}), paths.get("benign", {}), {})


def asked(suite: Suite | None) -> dict[str, list[str]]:
    """What is asked of each set."""
    return {} if suite is None else {name: [prompt.text for prompt in prompts] for _, name, prompts in suite}


def prompts(count: int, start: int = 0, **more: str) -> list[dict]:
    return [{"prompt": f"how do i do {number}?", **more} for number in range(start, start + count)]


def questions(count: int, start: int = 0) -> list[dict]:
    return [{"question": f"how do i do {number}?", "answer": "so"} for number in range(start, start + count)]


def divided(parts: Parts) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The prompts that choose and those that confirm; none is in both."""
    choosing, confirming = asked(parts.choosing), asked(parts.confirming)
    every = [{text for of_set in found.values() for text in of_set} for found in (choosing, confirming)]
    assert not every[0] & every[1]
    return choosing, confirming


def test_each_set_is_halved_by_the_seed(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, safety=prompts(9), task=questions(20, 100))
    choosing, confirming = divided(split(suite, Suite(), BOUNDS, settings=6))
    assert [len(choosing[name]) for name in ("safety", "task")] == [5, 10]
    assert {name: sorted(choosing[name] + confirming[name]) for name in choosing} == {
        name: sorted(texts) for name, texts in asked(suite).items()
    }
    again = split(suite_of(tmp_path, safety=prompts(9), task=questions(20, 100)), Suite(), BOUNDS, settings=6)
    assert divided(again) == (choosing, confirming)
    others = divided(split(suite, Suite(), BOUNDS, settings=6, seed=1))
    assert others != (choosing, confirming)


def test_the_halves_have_the_same_categories(tmp_path: Path) -> None:
    records = [*prompts(6, category="fraud"), *prompts(10, 50, category="harm"), *prompts(3, 90, category="other")]
    suite = suite_of(tmp_path, safety=records)
    parts = split(suite, Suite(), BOUNDS, settings=2)
    for part in parts.suites:
        found = Counter(prompt.category for _, _, each in part for prompt in each)
        assert (found["fraud"], found["harm"]) == (3, 5)
        assert found["other"] in (1, 2)


def test_what_belongs_together_stays_together(tmp_path: Path) -> None:
    """The same question twice in a set and in several sets, and the questions of one record."""
    talks = [
        {
            "conversations": [
                dict(zip(TURNS, turn, strict=True))
                for question in ("first", "second")
                for turn in (("human", f"{question} {number}?"), ("gpt", "so"))
            ]
        }
        for number in range(8)
    ]
    suite = suite_of(
        tmp_path, safety=[*prompts(8), *prompts(4)], task=questions(12, 4), benign=[*prompts(5, 10), *prompts(5, 50)]
    )
    choosing, confirming = divided(split(suite, Suite(), BOUNDS, settings=2))
    assert all(choosing.values())
    assert all(confirming.values())
    twice = Counter(choosing["safety"]) | Counter(confirming["safety"])
    assert sum(twice.values()) == 12

    together = Suite.of({}, {"talks": jsonl(tmp_path / "talks.jsonl", *talks)}, {}, {})
    records = [
        {prompt.source.partition("#")[0] for _, _, each in part for prompt in each}
        for part in split(together, Suite(), BOUNDS, settings=2).suites
    ]
    assert not records[0] & records[1]
    assert len(records[0]) == len(records[1]) == 4


def test_a_file_for_the_confirmation(tmp_path: Path) -> None:
    """Its set is not halved, but for the prompts that stand in the file too; the others are."""
    suite = suite_of(tmp_path, safety=prompts(10), task=questions(6, 100))
    file = jsonl(tmp_path / "more.jsonl", *prompts(8, 7))
    given = confirming_files(suite, {"safety": file})
    parts = split(suite, given, BOUNDS, settings=2)
    choosing, confirming = divided(parts)
    assert (len(choosing["safety"]), len(confirming["safety"])) == (7, 8)
    assert (len(choosing["task"]), len(confirming["task"])) == (3, 3)
    assert parts.notes == ("3 of the 10 prompts of safety are used to confirm, and do not choose.",)
    everything = confirming_files(suite, {"safety": jsonl(tmp_path / "all.jsonl", *prompts(30))})
    with pytest.raises(
        EvaluationError, match="every prompt of safety is used to confirm: give other prompts to choose"
    ):
        split(suite, everything, BOUNDS, settings=2)
    assert divided(split(suite, confirming_files(suite, {}), BOUNDS, settings=2))[1]["safety"]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (
            {"gone": "more"},
            "a confirmation is given for gone, and the tests are safety, both: give the name of one test.",
        ),
        ({"both": "more"}, r"several tests have that name \(task and benign\): give the name of one test."),
        ({"safety": "safety"}, r"the confirmation of safety is the test file .*safety\.jsonl too: give other prompts"),
    ],
)
def test_a_file_that_confirms_nothing(files: dict[str, str], sentence: str, tmp_path: Path) -> None:
    named = {name: jsonl(tmp_path / f"{name}.jsonl", *prompts(4)) for name in ("safety", "more", "benign")}
    task = jsonl(tmp_path / "task.jsonl", *questions(4))
    suite = Suite.of({"safety": named["safety"]}, {"both": task}, {"both": named["benign"]}, {})
    with pytest.raises(EvaluationError, match=sentence):
        confirming_files(suite, {name: named[file] for name, file in files.items()})


def test_too_few_prompts_are_not_divided(tmp_path: Path) -> None:
    """Nor those of a single setting, of which none is chosen."""
    suite = suite_of(tmp_path, safety=prompts(1), task=questions(6, 100))
    parts = split(suite, Suite(), BOUNDS, settings=2)
    assert asked(parts.choosing) == asked(suite)
    assert parts.confirming is None
    assert parts.notes == (
        "safety has too few prompts to choose by some and to confirm on others, so the choice is not confirmed: give "
        "more, or others with --confirm-test.",
    )
    alone = split(suite_of(tmp_path, safety=prompts(8), task=questions(6, 100)), Suite(), BOUNDS, settings=1)
    assert (alone.confirming, alone.notes) == (None, ())
    assert len(asked(alone.choosing)["safety"]) == 8


def test_prompts_that_cannot_show_the_bound(tmp_path: Path) -> None:
    suite = suite_of(tmp_path, safety=prompts(40), task=questions(6, 100), benign=prompts(12, 200))
    split(suite, Suite(), Bounds(max_asr=5), settings=2)
    split(suite, Suite(), Bounds(max_asr=20, confident=True), settings=2)
    for bounds, sentence in (
        (
            Bounds(max_asr=5, confident=True),
            "the 20 attacks that choose cannot show less than 16.1 % with 95 % confidence, and --max-asr is 5: give 73 "
            "for each part, allow more, or leave out --confident.",
        ),
        (
            Bounds(max_asr=20, max_over_refusal=10, confident=True),
            "the 6 harmless prompts that choose cannot show less than 39.0 % with 95 % confidence, and "
            "--max-over-refusal is 10: give 35 for each part, allow more, or leave out --confident.",
        ),
        (Bounds(max_asr=0, confident=True), "and --max-asr is 0: allow more, or leave out --confident."),
    ):
        with pytest.raises(EvaluationError) as caught:
            split(suite, Suite(), bounds, settings=2)
        assert sentence in str(caught.value)


@pytest.mark.parametrize("counts", [(1,), (16,), (32,), (73,), (20, 20), (8, 40, 3)])
def test_what_prompts_can_show_at_best(counts: tuple[int, ...]) -> None:
    """Is what the intervals of an evaluation are if no attack succeeds; and the fewest that show it are so many."""
    high = mean_of_sets([[0.0] * count for count in counts]).high
    assert best_high(counts) == pytest.approx(high)
    if len(set(counts)) == 1:
        assert fewest(high + 1e-6, len(counts)) == sum(counts)
        assert (fewest(high - 1e-3, len(counts)) or 0) > sum(counts)
