"""Scores of answers."""

from pathlib import Path

import pytest
from evaluation_cases import jsonl

from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation import names, scoring
from hpa_merge.evaluation.prompts import Prompt, PromptFile
from hpa_merge.evaluation.scoring import check_metric, default_metric, score
from hpa_merge.evaluation.vqa import normalised, vqa_accuracy
from hpa_merge.records import Sample


def prompt(*references: str, choices: tuple[str, ...] = ()) -> Prompt:
    return Prompt(Sample("t.jsonl:1"), references, choices)


@pytest.mark.parametrize(
    ("answer", "references", "exact", "contains"),
    [
        ("Red", ("red",), 1, 1),
        (" red. ", ("Red",), 1, 1),
        ("**red**", ("red",), 1, 1),
        ("dark  red", ("Dark Red",), 1, 1),
        ("It is red, I think.", ("red",), 0, 1),
        ("It is reddish.", ("red",), 0, 0),
        ("The answer is 3.5", ("3",), 0, 0),
        ("3.0", ("3",), 1, 1),
        ("1,000", ("1000",), 1, 1),
        ("It has 1,000 pages.", ("1000.0",), 0, 1),
        ("It has 11,000 pages.", ("1,000",), 0, 0),
        ("v3", ("3",), 0, 0),
        ("٣", ("3",), 1, 1),
        ("赤。", ("赤",), 1, 1),
        ("「東京」", ("東京",), 1, 1),
        ("答えは東京です。", ("東京",), 0, 1),
        ("正解は ＲＥＤ です", ("red",), 0, 1),
        ("정답은 서울입니다.", ("서울",), 0, 1),
        ("«Красный».", ("красный",), 1, 1),
        ("Это красный цвет", ("красн",), 0, 0),
        ("यह लाल है।", ("लाल",), 0, 1),
        ("यह लालू है।", ("लाल",), 0, 0),
        ("¿Rojo?", ("rojo",), 1, 1),
        ("أحمر،", ("أحمر",), 1, 1),
        ("สีแดงครับ", ("สีแดง",), 0, 1),
        ("Cafe\u0301", ("café",), 1, 1),
        ("13", ("3",), 0, 0),
        ("It is C++.", ("C++",), 0, 1),
        ("blue", ("red", "blue"), 1, 1),
        ("", ("red",), 0, 0),
    ],
)
def test_exact_match_and_containment(answer: str, references: tuple[str, ...], exact: int, contains: int) -> None:
    assert score("exact", answer, prompt(*references)) == exact
    assert score("contains", answer, prompt(*references)) == contains


def test_vqa_accuracy_is_the_mean_over_all_people_but_one() -> None:
    people = ["red"] * 3 + ["blue"] * 7
    # Left out is one of the three in 3 of 10 choices: 2 agree; else 3 agree.
    assert vqa_accuracy("red", people) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert vqa_accuracy("blue", people) == 1
    assert vqa_accuracy("green", people) == 0
    assert vqa_accuracy("red", ["red"] + ["blue"] * 9) == pytest.approx(0.9 / 3)
    assert vqa_accuracy("red", ["red"] * 2 + ["blue"] * 8) == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert vqa_accuracy("red", ["red"] * 4) == 1
    with pytest.raises(ValueError, match="needs 4 references or more, and there are 3"):
        vqa_accuracy("red", ["red"] * 3)
    assert score("vqa", "The Red.", prompt(*people)) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("given", "compared"),
    [
        ("The red  car.", "red car"),
        ("two", "2"),
        ("None", "0"),
        ("dont", "don't"),
        ("don't", "don't"),
        ("well-known", "well known"),
        ("yes!", "yes"),
        ("1,000", "1000"),
        ("3.5 m", "3.5 m"),
        ("u.s.", "us"),
        ("red/blue", "red blue"),
        ("red / blue", "red blue"),
        ("no, thanks", "no thanks"),
        ("line\nbreak\ttab", "line break tab"),
    ],
)
def test_answers_of_vqa_are_compared_without_articles_and_punctuation(given: str, compared: str) -> None:
    assert normalised(given) == compared


def test_rouge_l_is_the_best_reference_s() -> None:
    # The longest common subsequence of "the cat sat" and "the cat ran off" is 2 words: P = 2/3, R = 2/4.
    expected = 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)
    assert score("rouge-l", "The cat sat.", prompt("the cat ran off")) == pytest.approx(expected)
    assert score("rouge-l", "The cat sat.", prompt("the cat ran off", "the cat sat")) == 1
    assert score("rouge-l", "", prompt("the cat")) == 0


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("猫は座った", "猫は座った", 1.0),
        ("红色的球", "蓝色的球", 3 / 4),  # three of four characters, in their order
        ("नीला आकाश", "नीला आकाश", 1.0),
        ("नीला आकाश", "नीली आकाश", 1 / 2),  # the sign of a vowel belongs to its word
        ("красный дом", "красный дом", 1.0),
        ("빨간 집", "파란 집", 1 / 2),
        ("Don't stop", "don't stop", 1.0),
        ("a_b", "a b", 1.0),
    ],
)
def test_rouge_l_in_any_script(answer: str, reference: str, expected: float) -> None:
    assert score("rouge-l", answer, prompt(reference)) == pytest.approx(expected)


def test_rouge_l_of_ascii_is_the_library_s_own() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    own = RougeScorer(["rougeL"])
    for answer, reference in (("The cat's hat, 3.5 m", "the cat hat is 3 m"), ("A b-c d_e", "a b c d e")):
        assert score("rouge-l", answer, prompt(reference)) == own.score(reference, answer)["rougeL"].fmeasure


def test_the_command_knows_the_metrics() -> None:
    assert tuple(scoring._SCORES) == names.METRICS


def test_the_metric_of_a_file(tmp_path: Path) -> None:
    def file(*records: dict) -> PromptFile:
        return PromptFile(jsonl(tmp_path / "t.jsonl", *records), "task")

    plain, few = {"question": "a", "answer": "b"}, {"question": "a", "answers": ["b", "c"]}
    many, choice = {"question": "a", "answers": ["b"] * 10}, {"question": "a", "choices": ["b", "c"], "answer": "A"}
    assert [default_metric(file(record)) for record in (plain, few, many, choice)] == [
        "exact",
        "exact",
        "vqa",
        "choice",
    ]
    for metric in ("exact", "contains", "rouge-l"):
        check_metric(metric, file(plain, few, many))
    check_metric("vqa", file(many, many))
    with pytest.raises(EvaluationError, match=r't\.jsonl:2 has 2 "answers", and VQA accuracy needs 4 or more'):
        check_metric("vqa", file(many, few))
    with pytest.raises(EvaluationError, match=r't\.jsonl:2 has no "choices"'):
        check_metric("choice", file(choice, plain))


def test_rouge_l_without_its_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = PromptFile(jsonl(tmp_path / "t.jsonl", {"question": "a", "answer": "b"}), "task")
    monkeypatch.setattr(scoring, "find_spec", lambda name: None)
    with pytest.raises(EvaluationError, match=r"pip install '\.\[eval\]'"):
        check_metric("rouge-l", prompts)
    check_metric("exact", prompts)
