"""Multiple choice: where the choices stand, and how the right one is named."""

from typing import Any

from layout_cases import Case

__all__ = ["CHOICE"]

LETTERS = "Answer with the letter of the right choice."
CHOICES = ("red", "green", "blue")
SHOWN = f"What?\nA. red\nB. green\nC. blue\n{LETTERS}"
CHOSEN = f"user: {SHOWN} / assistant: B"
TWO = f"What?\nA. red\nB. green\n{LETTERS}"


def one(**fields: Any) -> tuple[dict[str, Any], ...]:
    return (fields,)


def choice(name: str, origin: str, note: str = "", prompt: str = CHOSEN, **fields: Any) -> Case:
    """A multiple choice of which the second is right."""
    passed = fields.pop("passed", ())
    choices = fields.pop("of", CHOICES)
    return Case(name, origin, one(**fields), prompt, references=("B",), choices=choices, passed=passed, note=note)


CHOICE = (
    choice("choices and a letter", "many", question="What?", choices=list(CHOICES), answer="B"),
    choice(
        "a question with its choices within",
        "ARC's and OpenBookQA's own files",
        id="M_1",
        question={"stem": "What?", "choices": [{"text": t, "label": n} for t, n in zip(CHOICES, "123", strict=True)]},
        answerKey="2",
        passed=("id",),
    ),
    choice(
        "CosmosQA",
        "CosmosQA",
        "the context stands before the question",
        prompt=f"user: Grass.\n{SHOWN} / assistant: B",
        context="Grass.",
        question="What?",
        answer0="red",
        answer1="green",
        answer2="blue",
        label=1,
    ),
    choice(
        "SocialIQA",
        "SocialIQA",
        "its label counts from 1",
        prompt=f"user: Grass.\n{SHOWN} / assistant: B",
        context="Grass.",
        question="What?",
        answerA="red",
        answerB="green",
        answerC="blue",
        label="2",
    ),
    choice("choices and a text in other case", "CSV files", question="What?", choices=list(CHOICES), answer="Green"),
    choice("choices and a text", "many", question="What?", choices=list(CHOICES), answer="green"),
    choice("options", "RACE, AQuA", question="What?", options=list(CHOICES), answer="B"),
    choice(
        "options by letter",
        "MedQA",
        question="What?",
        options=dict(zip("ABC", CHOICES, strict=True)),
        answer="green",
        answer_idx="B",
    ),
    choice(
        "options with letters of their own",
        "AQuA",
        question="What?",
        options=["A)red", "B)green", "C)blue"],
        correct="B",
    ),
    choice("options as a list in a string", "MMMU", question="What?", options="['red', 'green', 'blue']", answer="B"),
    choice(
        "MMMU",
        "MMMU",
        "`<image 1>` is the place of `image_1`, in choices too",
        prompt=f"user: What of | [image a.png] | ?\nA. red\nB. green\n{LETTERS} / assistant: B",
        of=("red", "green"),
        id="v_1",
        question="What of <image 1>?",
        options="['red', 'green']",
        answer="B",
        image_1={"bytes": None, "path": "a.png"},
        image_2=None,
        passed=("id",),
    ),
    choice(
        "MMLU",
        "MMLU",
        "the answer counts from 0",
        question="What?",
        subject="colours",
        choices=list(CHOICES),
        answer=1,
        passed=("subject",),
    ),
    choice(
        "ScienceQA",
        "ScienceQA",
        "the hint stands before the question; lecture and solution are not fed",
        prompt=f"user: [image a.png] | Grass is seen.\n{SHOWN} / assistant: B",
        image="a.png",
        question="What?",
        choices=list(CHOICES),
        answer=1,
        hint="Grass is seen.",
        task="closed choice",
        grade="grade2",
        subject="natural science",
        lecture="Plants are green.",
        solution="It is grass.",
        passed=("grade", "lecture", "solution", "subject", "task"),
    ),
    Case(
        "ScienceQA, numbered",
        "ScienceQA's problems.json",
        one(
            **{
                "1": {"question": "What?", "choices": list(CHOICES), "answer": 1},
                "2": {"question": "Who?", "answer": "I"},
            }
        ),
        CHOSEN,
        references=("B",),
        choices=CHOICES,
        note="an object of numbered records is all of them",
    ),
    choice(
        "A-OKVQA",
        "A-OKVQA",
        prompt=f"user: [image a.png] | {SHOWN} / assistant: B",
        image="a.png",
        question_id="x",
        question="What?",
        choices=list(CHOICES),
        correct_choice_idx=1,
        direct_answers=["green", "grass green"],
        difficult_direct_answer=False,
        rationales=["Grass is green."],
        passed=("difficult_direct_answer", "direct_answers", "question_id", "rationales"),
    ),
    choice(
        "ARC",
        "ARC",
        id="M_1",
        question="What?",
        choices={"text": list(CHOICES), "label": ["1", "2", "3"]},
        answerKey="2",
        passed=("id",),
    ),
    choice(
        "CommonsenseQA",
        "CommonsenseQA",
        question="What?",
        question_concept="grass",
        choices={"label": ["A", "B", "C"], "text": list(CHOICES)},
        answerKey="B",
        passed=("question_concept",),
    ),
    choice(
        "OpenBookQA",
        "OpenBookQA",
        question_stem="What?",
        choices={"text": list(CHOICES), "label": ["A", "B", "C"]},
        answerKey="B",
        fact1="grass is green",
        passed=("fact1",),
    ),
    choice(
        "choices as objects",
        "one's own files",
        question="What?",
        choices=[{"label": letter, "text": text} for letter, text in zip("ABC", CHOICES, strict=True)],
        answer="B",
    ),
    choice(
        "A to D in columns",
        "MMBench, CSV files",
        "as many columns as are filled",
        prompt=f"user: [image a.png] | Grass is seen.\n{SHOWN} / assistant: B",
        index=241,
        image="a.png",
        question="What?",
        hint="Grass is seen.",
        A="red",
        B="green",
        C="blue",
        D="",
        answer="B",
        category="colour",
        **{"l2-category": "perception"},
        passed=("index", "l2-category"),
    ),
    choice(
        "choice_a to choice_d",
        "SEED-Bench",
        question="What?",
        choice_a="red",
        choice_b="green",
        choice_c="blue",
        answer="B",
    ),
    Case(
        "opa to opd",
        "MedMCQA",
        one(question="What?", opa="red", opb="green", opc="blue", cop=2),
        CHOSEN,
        references=("B",),
        choices=CHOICES,
        options={"names": {"index_from_1": "cop"}},
        note="with `--map index_from_1=cop`, as its own files count; the Hub's copy counts from 0",
    ),
    Case(
        "a number next to columns of choices",
        "MedMCQA",
        one(question="What?", opa="red", opb="green", opc="blue", cop=1),
        refused="the answer 1 may count from 0 or from 1: give a letter from A to C, or say how it is meant with --map "
        "index_from_0=cop or --map index_from_1=cop.",
    ),
    choice(
        "options in one text",
        "MMVP",
        of=("red", "green"),
        prompt=f"user: {TWO} / assistant: B",
        Question="What?",
        Options="(a) red (b) green",
        **{"Correct Answer": "(b)"},
    ),
    choice(
        "columns numbered from 1",
        "one's own files",
        "a number is the column's",
        question="What?",
        option_1="red",
        option_2="green",
        option_3="blue",
        correct_option=2,
    ),
    choice(
        "PIQA",
        "PIQA",
        of=("red", "green"),
        prompt=f"user: {TWO} / assistant: B",
        goal="What?",
        sol1="red",
        sol2="green",
        label=1,
    ),
    choice(
        "HellaSwag",
        "HellaSwag",
        ind=4,
        activity_label="Painting",
        ctx_a="What",
        ctx_b="?",
        ctx="What?",
        endings=list(CHOICES),
        source_id="a~1",
        split="val",
        label=1,
        passed=("activity_label", "ctx_a", "ctx_b", "ind", "source_id", "split"),
    ),
    choice(
        "WinoGrande",
        "WinoGrande",
        "its answer counts from 1",
        of=("red", "green"),
        prompt=f"user: {TWO} / assistant: B",
        sentence="What?",
        option1="red",
        option2="green",
        answer="2",
    ),
    choice(
        "choices of a conversation",
        "one's own files",
        prompt="user: What, A or B? / assistant: green",
        of=("red", "green"),
        messages=[{"role": "user", "content": "What, A or B?"}, {"role": "assistant", "content": "green"}],
        choices=["red", "green"],
        note="a conversation is left as it is",
    ),
    Case(
        "a number in a string",
        "AI2D",
        one(question="What?", options=list(CHOICES), answer="1"),
        refused="the answer '1' is a number in a string, and may count from 0 or from 1: give a letter from A to C, "
        "or say how it is meant with --map index_from_0=answer or --map index_from_1=answer.",
    ),
    Case(
        "an index of no choice",
        "files that count from 1",
        one(question="What?", choices=list(CHOICES), answer=3),
        refused="the answer 3 is the index of none of the 3 choices, which count from 0: give a letter from A to C, "
        "or the "
        "text of a choice.",
    ),
    Case(
        "an answer that is no choice",
        "one's own files",
        one(question="What?", choices=list(CHOICES), answer="D"),
        refused="the answer 'D' is none of the choices: give a letter from A to C, or the text of a choice.",
    ),
    Case(
        "two right answers that differ",
        "MMLU-Pro with a mistake",
        one(question="What?", options=list(CHOICES), answer="B", answer_index=2),
        refused='"answer" (B) and "answer_index" (C) name different choices: keep one of them.',
    ),
    Case(
        "columns with a gap",
        "MMBench-like CSV files",
        one(question="How many?", A="1", B="2", C="", D="4", answer="B"),
        refused='"D" may be a choice, and is not read as one: fill the choices before it, or leave them out in all '
        "records, or pass it over with --ignore-field D.",
    ),
)
