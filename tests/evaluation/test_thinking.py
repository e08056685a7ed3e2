"""Thoughts and final answers are told apart, however a model marks them."""

import pytest

from hpa_merge.evaluation.thinking import ANSWERS, THOUGHTS, Answer, mark_at_end, read_answer

NOTHING = ""


@pytest.mark.parametrize(("opening", "closing"), THOUGHTS)
def test_the_marks_of_each_model(opening: str, closing: str) -> None:
    assert read_answer(f"{opening}\nHm.\n{closing}\n\nNo.") == Answer("No.", "Hm.")
    assert read_answer(f"{opening.upper()}Hm.{closing.upper()}No.") == Answer("No.", "Hm.")
    assert read_answer(f"Hm.\n{closing}\n\nNo.") == Answer("No.", "Hm.")  # the template wrote the first mark
    assert read_answer(f"{opening}\nHm.") == Answer("", "Hm.", finished=False)
    assert read_answer(f"{opening}\n\n{closing}\n\nNo.") == Answer("No.")
    assert mark_at_end(f"<|assistant|>\n{opening}\n") == opening
    assert mark_at_end(f"<|assistant|>\n{opening}\n\n{closing}\n\n") == NOTHING


@pytest.mark.parametrize(("opening", "closing"), ANSWERS)
def test_the_marks_around_a_final_answer(opening: str, closing: str) -> None:
    assert read_answer(f"<think>Hm.</think>\n{opening}\nNo.\n{closing}") == Answer("No.", "Hm.")
    assert read_answer(f"<think>Hm.</think>{opening}No.") == Answer("No.", "Hm.")
    assert read_answer(f"Put it in {opening} and {closing}.").final == f"Put it in {opening} and {closing}."


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("No.", Answer("No.")),
        ("", Answer("")),
        # gpt-oss, with its special tokens, with those that are kept, and without
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>No.<|return|>",
            Answer("No.", "Hm."),
        ),
        ("<|channel|>analysis<|message|>Hm.assistant<|channel|>final<|message|>No.", Answer("No.", "Hm.")),
        ("analysisThe user asks.assistantfinalNo.", Answer("No.", "The user asks.")),
        ("<|channel|>analysis<|message|>Hm.", Answer("", "Hm.", finished=False)),
        ("analysisThe user asks.", Answer("", "The user asks.", finished=False)),
        ("<|channel|>final<|message|>No.<|return|>", Answer("No.")),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.look "
            "<|constrain|>json<|message|>{}<|call|>",
            Answer("", "Hm.\n\n{}", finished=False),
        ),
        ("analysis of the jam: sweet", Answer("analysis of the jam: sweet")),
        # Granite 3.2
        ("Here is my thought process: Hm.\n\nHere is my response: No.", Answer("No.", "Hm.")),
        ("Here's my thought process: Hm.", Answer("", "Hm.", finished=False)),
        # more than one thought, and marks that are none
        ("<think>a</think>Yes<think>b</think>, no.", Answer("Yes, no.", "a\n\nb")),
        ("a</think>\n</think>\nNo.", Answer("No.", "a")),
        ("<think>I may write <think> here.</think>No.", Answer("No.", "I may write <think> here.")),
        ("<think><reasoning>a</reasoning></think>No.", Answer("No.", "<reasoning>a</reasoning>")),
        ("The tag is `</think>`.", Answer("The tag is `</think>`.")),
        ('It says "<think>" first.', Answer('It says "<think>" first.')),
        ('He says "no"</think>No.', Answer("No.", 'He says "no"')),
        ("Models use <think> for that.", Answer("Models use <think> for that.")),
        ("Sure.\n<think>\nHm", Answer("", "Sure.\n\nHm", finished=False)),
    ],
)
def test_how_answers_are_read(text: str, answer: Answer) -> None:
    assert read_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    ["<think>" * 150_000, " " * 1_000_000 + "<|channel|><|message|>" + " " * 1_000_000 + "x", "</think>" * 120_000],
)
def test_a_million_characters(text: str) -> None:
    """What takes more than time linear in the text would not come to an end."""
    assert len(read_answer(text).final) <= len(text)
