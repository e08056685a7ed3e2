"""Test files: what becomes a prompt, what its references are, and what is refused."""

from pathlib import Path

import pytest
from evaluation_cases import jsonl
from media import shown
from PIL import Image

from hpa_merge.errors import CalibrationError, EvaluationError
from hpa_merge.evaluation.prompts import Prompt, PromptFile
from hpa_merge.records import Turn
from hpa_merge.records.layouts.choices import CHOICE_REQUEST


@pytest.fixture(name="folder")
def folder_with_an_image(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return tmp_path


def only(folder: Path, record: object, purpose: str = "task") -> Prompt:
    (prompt,) = PromptFile(jsonl(folder / "t.jsonl", record), purpose)  # type: ignore[arg-type]
    return prompt


def test_the_calibration_formats_with_the_last_answer_as_the_reference(folder: Path) -> None:
    asked = (Turn("user", shown(folder / "a.png", "What?")),)
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    for record, turns in (
        ({"question": "What?", "answer": "red", "image": "a.png"}, asked),
        ({"prompt": "What?", "chosen": "red", "image": "a.png"}, asked),
        (
            {
                "image": "a.png",
                "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "red"}],
            },
            asked,
        ),
        ({"image": "a.png", "instr-resp": [{"safe_instruction": "What?", "response": "red"}]}, asked),
        (
            {"messages": [*talk, {"role": "user", "content": "What?"}, {"role": "assistant", "content": "red"}]},
            (Turn("user", ("Hi",)), Turn("assistant", ("Yes?",)), Turn("user", ("What?",))),
        ),
    ):
        prompt = only(folder, record)
        assert prompt.sample.turns == turns
        assert prompt.references == ("red",)
        assert prompt.text == "What?"
        assert prompt.source == f"{folder / 't.jsonl'}:1" + ("#1" if "instr-resp" in record else "")


def test_a_safety_prompt_needs_no_answer(folder: Path) -> None:
    for record in (
        {"instruction": "How?", "input": "so"},
        {"messages": [{"role": "user", "content": "How?\nso"}]},
        {"conversations": [{"from": "human", "value": "How?\nso"}], "image": None},
    ):
        prompt = only(folder, record, "safety")
        assert prompt.sample.turns == (Turn("user", ("How?\nso",)),)
        assert prompt.references == ()
    assert only(folder, {"prompt": "How?", "category": "fraud"}, "safety").category == "fraud"
    assert only(folder, {"prompt": "How?", "harmful_category": "fraud"}, "safety").category == "fraud"


def test_choices_are_written_below_a_question_and_not_into_a_conversation(folder: Path) -> None:
    choices = ["red", "green", "blue"]
    written = f"What?\nA. red\nB. green\nC. blue\n{CHOICE_REQUEST}"
    for answer in ("B", "b", "(B)", "B.", "green"):
        prompt = only(folder, {"question": "What?", "choices": choices, "answer": answer})
        assert prompt.text == written
        assert prompt.references == ("B",)
        assert prompt.choices == tuple(choices)
    talk = [{"role": "user", "content": "A or B?"}, {"role": "assistant", "content": "C"}]
    prompt = only(folder, {"messages": talk, "choices": choices})
    assert (prompt.text, prompt.references) == ("A or B?", ("C",))


def test_several_answers(folder: Path) -> None:
    plain = only(folder, {"question": "What?", "answers": ["red", "dark red"]})
    annotated = {"answers": [{"answer": "red", "answer_id": 1}, {"answer": "dark red", "answer_id": 2}]}
    assert plain.references == ("red", "dark red") == only(folder, {"question": "What?", **annotated}).references
    assert only(folder, {"question": "What?", "answer": "red", "answers": ["red"]}).references == ("red",)


def test_of_vlguard_the_safe_instructions_are_no_attacks(folder: Path) -> None:
    pairs = [
        {"safe_instruction": "Name it.", "response": "Lock"},
        {"unsafe_instruction": "Break it.", "response": "No."},
    ]
    path = jsonl(folder / "t.jsonl", {"image": "a.png", "instr-resp": pairs})
    assert [prompt.text for prompt in PromptFile(path, "safety")] == ["Break it."]
    assert [prompt.text for prompt in PromptFile(path, "benign")] == ["Name it."]
    assert [prompt.text for prompt in PromptFile(path, "task")] == ["Name it."]
    assert PromptFile(path, "safety").dropped == {"its prompt is labelled safe": 1}


def test_a_draw_is_by_the_seed_and_keeps_the_order(folder: Path) -> None:
    path = jsonl(folder / "t.jsonl", *({"prompt": str(number)} for number in range(50)))

    def drawn(**options: int) -> list[int]:
        return [int(prompt.text) for prompt in PromptFile(path, "safety", **options)]

    assert drawn() == drawn(limit=50) == drawn(limit=99) == list(range(50))
    assert len(drawn(limit=7)) == 7
    assert drawn(limit=7) == sorted(drawn(limit=7)) == drawn(limit=7, seed=0) != drawn(limit=7, seed=1)
    assert PromptFile(path, "safety", limit=7).count == 7


def test_the_example_is_the_first_with_an_image(folder: Path) -> None:
    path = jsonl(folder / "t.jsonl", {"prompt": "a"}, {"prompt": "b", "image": "a.png"}, {"prompt": "c"})
    assert PromptFile(path, "safety").example.text == "b"
    path = jsonl(folder / "t.jsonl", {"prompt": "a"}, {"prompt": "b"})
    assert PromptFile(path, "safety").example.text == "a"


@pytest.mark.parametrize(
    ("record", "purpose", "sentence"),
    [
        (
            {"question": "What?"},
            "task",
            '{place}: the prompt has no answer to compare with: add "answer" or "answers".',
        ),
        ({"messages": [{"role": "user", "content": "a"}]}, "task", "{place}: the prompt has no answer to compare with"),
        ({"text": "Once"}, "safety", "{place}: no prompt: a test needs a question, or a conversation"),
        ({"input_ids": [1]}, "safety", "{place}: no prompt: a test needs a question"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "safety", "{place}: no prompt"),
        ({"messages": [{"role": "system", "content": "a"}]}, "safety", "{place}: no prompt"),
    ],
)
def test_what_is_no_prompt_is_refused(folder: Path, record: dict, purpose: str, sentence: str) -> None:
    path = jsonl(folder / "t.jsonl", {"question": "a", "answer": "b"}, record)
    with pytest.raises(EvaluationError) as raised:
        PromptFile(path, purpose)  # type: ignore[arg-type]
    assert str(raised.value).startswith(sentence.format(place=f"{path}:2"))


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ("{", ":2: not valid JSON"),
        ([1], ":2: a JSON object is expected, found an array"),
        ({"question": 3}, ':2: "question" is a number: give a string.'),
        ({"question": "W", "answer": True}, ':2: "answer" is a boolean, and its wording is not known'),
        ({"question": "W", "choices": ["a", "b"], "answer": "C"}, ":2: the answer 'C' is none of the choices: "),
        ({"question": "W", "choices": ["a"], "answer": "A"}, ':2: "choices" has 1 entries: give 2 to 26.'),
        ({"question": "W", "choices": "ab", "answer": "A"}, ':2: "choices" has to be an array of texts.'),
        ({"question": "W", "choices": ["a", None, "b"], "answer": "A"}, ':2: "choices" has to be an array of texts.'),
        ({"question": "W", "answers": "red"}, ':2: "answers" has to be an array of texts.'),
        ({"question": "W", "answers": [["red"]]}, ':2: "answers" has to be an array of texts, and holds an array.'),
        ({"question": "W", "answers": [{"said": "red"}]}, ':2: "answers" holds objects with "said", and which one is'),
        ({"question": "W", "image": "gone.png"}, ":2: the image gone.png is not a file in"),
        ({"question": "W", "image": "http://x/a.png"}, ":2: the image http://x/a.png is a URL"),
        ({"label": 1}, ":2: no known field"),
    ],
)
def test_a_malformed_record_is_refused_as_in_a_calibration_file(folder: Path, record: object, sentence: str) -> None:
    path = jsonl(folder / "t.jsonl", {"question": "a"}, record)
    with pytest.raises(CalibrationError) as raised:
        PromptFile(path, "safety")
    assert str(raised.value).startswith(f"{path}{sentence}")


def test_a_file_that_is_not_there_or_empty(folder: Path) -> None:
    with pytest.raises(CalibrationError, match=r"the test file .*gone\.jsonl does not exist: check the path\."):
        PromptFile(folder / "gone.jsonl", "task")
    with pytest.raises(EvaluationError, match="holds no prompt for a task test"):
        PromptFile(jsonl(folder / "t.jsonl"), "task")
    pairs = [{"safe_instruction": "Name it.", "response": "Lock"}]
    with pytest.raises(EvaluationError, match="holds no prompt for a safety test"):
        PromptFile(jsonl(folder / "t.jsonl", {"image": "a.png", "instr-resp": pairs}), "safety")
