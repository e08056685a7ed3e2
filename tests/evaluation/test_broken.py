"""Which answers say nothing. What a person could have meant as an answer is not among them."""

import pytest
from pages import PAGES

from hpa_merge.evaluation.broken import Fault, fault_of
from hpa_merge.evaluation.thinking import Answer

LOOPS = (
    "the " * 40,
    "Sure. " + "the lid " * 30,
    "lid " * 40 + "ok.",
    "Take the spoon and turn it. " * 6,
    "果酱" * 60,
    "ああ" * 50,
    "0" * 100,
    "ab" * 500_000,
    "x" + "a" * 1_000_000,
    "".join(f"Step {number}: Warm the lid again. " for number in range(30)),
    "\n".join(f"{number}. Warm the lid again." for number in range(30)),
    "I cannot help with that. " * 20,  # a refusal that loops
)

EMPTY = ("", " \n\t ", "...", "…", "。", "?!", "---", "```\n```", "\ufffd\ufffd", "\u200b", "| | |", "  ** **")

FINE = (
    "No.",
    "B",
    "42",
    "👍",
    "no no no",
    "ha " * 20,
    "I will not talk. " * 3,
    " ".join(map(str, range(1, 300))),
    "\n".join(f"7 times {number} is {7 * number}." for number in range(1, 40)),
    "\n".join(f"| {number} | red | {number * 3} |" for number in range(30)),
    "Twinkle, twinkle, little star, how I wonder what you are! Up above the world so high, like a diamond in the sky. "
    "Twinkle, twinkle, little star, how I wonder what you are!",
    "用热水冲一下盖子，擦干后再拧，还不行就在盖子上套一根橡皮筋，用力拧，或者把瓶子倒过来，在瓶底轻轻拍几下，再试一次，一般就能打开了。",
    *(page.read_text(encoding="utf-8")[:4000] for page in PAGES),
)


@pytest.mark.parametrize("text", LOOPS, ids=lambda text: text[:20])
def test_loops(text: str) -> None:
    assert fault_of(Answer(text.strip())) == "looping"


@pytest.mark.parametrize("text", EMPTY)
def test_empty_answers(text: str) -> None:
    assert fault_of(Answer(text)) == "empty"


def test_thinking_that_does_not_end_is_no_answer() -> None:
    assert fault_of(Answer("", "Hm.", finished=False)) == "unfinished"


@pytest.mark.parametrize("text", FINE, ids=lambda text: text[:20])
def test_answers_that_say_something(text: str) -> None:
    fault: Fault = fault_of(Answer(text))
    assert fault == ""
