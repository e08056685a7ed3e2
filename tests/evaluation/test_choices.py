"""Which choice an answer settles on: letters and texts, as models write them in many languages."""

import pytest

from hpa_merge.evaluation.choices import chosen

CHOICES = ("red", "green", "blue", "black")

SETTLED = {
    # a letter alone
    "B": "B",
    "b": "B",
    "B.": "B",
    "(B)": "B",
    "[B]": "B",
    "**B**": "B",
    "'B'": "B",
    "Ｂ": "B",
    "（B）": "B",
    "B。": "B",
    "a": "A",
    "D": "D",
    # a letter first
    "(B) green": "B",
    "b) green": "B",
    "B: green": "B",
    "B - green": "B",
    "B, because it is green": "B",
    "B、绿色": "B",
    "B\nbecause it is": "B",
    "A: red": "A",
    "A. green": "A",  # the letter comes first
    "C. blue\nB is wrong": "C",
    "A: B": "B",  # as in question and answer
    "A: The answer is B": "B",
    # the text of a choice
    "green": "B",
    "Green.": "B",
    "It looks green to me.": "B",
    "A green one.": "B",  # an article, not a letter
    "I think it is a red one": "A",
    "I believe the answer is red.": "A",
    "\\boxed{green}": "B",
    # said so
    "The answer is B.": "B",
    "The answer is a) red": "A",
    "The answer is a green ball": "B",
    "Answer: B": "B",
    "Answer: b": "B",
    "ANSWER: B": "B",
    "Ans: B": "B",
    "**Answer:** B": "B",
    "**Answer: B**": "B",
    "**Final Answer**\n\nB": "B",
    "the correct option is (B)": "B",
    "The correct option is (C).": "C",
    "The answer is option B.": "B",
    'The answer is "B".': "B",
    "The answer is $B$.": "B",
    "Option B": "B",
    "option b": "B",
    "I'd go with option (B).": "B",
    "I would choose B.": "B",
    "The best choice is B because A is red": "B",
    "A is correct, B is wrong": "A",
    "Therefore, B.": "B",
    "A. red B. green C. blue D. black\nAnswer: C": "C",
    "Option A is wrong. Final answer: B": "B",
    "\\boxed{B}": "B",
    "So $\\boxed{\\text{B}}$.": "B",
    "$$\\boxed{(B)}$$": "B",
    "\\boxed{A} is wrong, so \\boxed{B. green}": "B",
    "<answer>B</answer>": "B",
    # not the other
    "the answer is B, not A": "B",
    "The answer is not A but B.": "B",
    "No, it is not A. It is C.": "C",
    # other languages
    "Antwort: B": "B",
    "Die richtige Antwort ist B.": "B",
    "Die Antwort lautet B": "B",
    "Réponse : B": "B",
    "La bonne réponse est (B).": "B",
    "Respuesta: B": "B",
    "La respuesta correcta es la B.": "B",
    "Risposta: B": "B",
    "L'opzione corretta è B": "B",
    "A resposta é B": "B",
    "Ответ: B": "B",
    "Вариант B": "B",
    "答案是B": "B",
    "答案：B": "B",
    "【答案】B": "B",
    "正确选项是B": "B",
    "故选 B。": "B",
    "选择B项": "B",
    "正解はBです": "B",
    "答えはBです。": "B",
    "Bが正解です": "B",
    "정답은 B입니다": "B",
    "B번": "B",
    "الإجابة الصحيحة هي B": "B",
    "الإجابة: B": "B",
    "उत्तर: B": "B",
    "सही उत्तर B है": "B",
    "Svar: B": "B",
}

UNSETTLED = (
    "",
    "E",
    "I'm not sure.",
    "A, B",
    "A/B",
    "A or B",
    "A and B",
    "AB",
    "Answer: A, B",
    "The answers are A and C",
    "The answer is A or the answer is B",
    "The correct answer is (A) or (B)",
    "Both A and B are correct",
    "Either A or B",
    "Antwort: A oder B",
    "答案是A和B",
    "It is red or green.",
    "It is not red but green.",
    "A red and a green one",
)


@pytest.mark.parametrize("answer", SETTLED)
def test_an_answer_that_settles_on_one(answer: str) -> None:
    assert chosen(answer, CHOICES) == SETTLED[answer]


@pytest.mark.parametrize("answer", UNSETTLED)
def test_an_answer_that_settles_on_none_or_on_several(answer: str) -> None:
    assert chosen(answer, CHOICES) is None


@pytest.mark.parametrize(
    ("answer", "choices", "letter"),
    [
        ("It is dark red.", ("red", "dark red"), "B"),
        ("答えは緑です", ("赤", "緑"), "B"),
        ("正确的是蓝色", ("红色", "蓝色"), "B"),
        ("초록입니다", ("빨강", "초록"), "B"),
        ("１０００", ("1,000", "1000"), "B"),
        ("H", tuple("pqrstuvw"), "H"),
        ("I", tuple("pqrstuvw"), None),
    ],
)
def test_other_choices(answer: str, choices: tuple[str, ...], letter: str | None) -> None:
    assert chosen(answer, choices) == letter


@pytest.mark.parametrize("piece", ["answer ", "a, ", "\\boxed{", "A,", "not A ", "<answer>", "red ", " ", "("])
def test_an_answer_of_a_million_characters(piece: str) -> None:
    """What takes more than time linear in the text would not come to an end."""
    assert chosen(piece * (1_000_000 // len(piece)), CHOICES) in (None, "A")
