"""Questions with answers of their own words: about images, about texts, about neither."""

from typing import Any

from layout_cases import Case

__all__ = ["QUESTIONS"]

SEEN = "user: [image a.png] | What? / assistant: red"
TEN = [{"answer": "red", "answer_id": n, "answer_confidence": "yes"} for n in range(1, 9)]


def one(**fields: Any) -> tuple[dict[str, Any], ...]:
    return (fields,)


QUESTIONS = (
    Case(
        "articles with paragraphs",
        "SQuAD's own files",
        one(title="A_b", paragraphs=[{"context": "It.", "qas": [{"question": "What?", "answers": [{"text": "Red"}]}]}]),
        "user: It.\nWhat? / assistant: Red",
        passed=("title",),
    ),
    Case(
        "VQA",
        "VQAv2",
        one(
            question="What?",
            question_id=1,
            image_id=7,
            image="a.png",
            question_type="what",
            answer_type="other",
            multiple_choice_answer="red",
            answers=[*TEN, {"answer": "", "answer_id": 9}, {"answer": "dark red", "answer_id": 10}],
        ),
        SEEN,
        references=("red",) * 8 + ("dark red",),
        passed=("answer_type", "image_id", "question_id", "question_type"),
        note="an empty answer is left out; calibration takes the most frequent",
    ),
    Case(
        "OK-VQA on the Hub",
        "OK-VQA",
        one(question_id="1", image="a.png", question="What?", answers=["red", "red", "scarlet"]),
        SEEN,
        references=("red", "red", "scarlet"),
        passed=("question_id",),
    ),
    Case(
        "TextVQA",
        "TextVQA",
        one(
            image_id="x",
            question_id=1,
            question="What?",
            image="a.png",
            image_width=4,
            flickr_original_url="https://x.org/a.jpg",
            answers=["red", "red"],
            ocr_tokens=["STOP"],
            image_classes=["Sign"],
            set_name="val",
        ),
        SEEN,
        references=("red", "red"),
        passed=(
            *("flickr_original_url", "image_classes", "image_id", "image_width", "ocr_tokens", "question_id"),
            "set_name",
        ),
    ),
    Case(
        "GQA",
        "GQA",
        one(id="2", image="a.png", question="What?", answer="red", fullAnswer="It is red.", isBalanced=True),
        SEEN,
        passed=("fullAnswer", "id", "isBalanced"),
    ),
    Case(
        "VizWiz",
        "VizWiz",
        one(image="a.png", question="What?", answers=TEN, answer_type="other", answerable=1),
        SEEN,
        references=("red",) * 8,
        passed=("answer_type", "answerable"),
    ),
    Case(
        "POPE",
        "POPE",
        one(question_id=1, image="a.png", text="Is it red?", label="yes"),
        "user: [image a.png] | Is it red? / assistant: yes",
        references=("yes",),
        passed=("question_id",),
    ),
    Case(
        "question.jsonl",
        "LLaVA",
        one(question_id=1, image="a.png", text="What?", category="conv"),
        prompt="user: [image a.png] | What?",
        purpose="safety",
        category="conv",
        passed=("question_id",),
        refused='there is no answer, and a model is calibrated with prompt and answer: add it as "response" or as the '
        "assistant's last turn, or let the aligned model answer with hpa-merge calib.",
        refused_test="",
    ),
    Case("ChartQA", "ChartQA", one(image="a.png", query="What?", label=["red"]), SEEN, references=("red",)),
    Case(
        "SQuAD",
        "SQuAD",
        one(
            id="1",
            title="Colours",
            context="Grass is green.",
            question="What?",
            answers={"text": ["green", "green"], "answer_start": [9, 9]},
        ),
        "user: Grass is green.\nWhat? / assistant: green",
        references=("green", "green"),
        passed=("id", "title", "answer_start"),
    ),
    Case(
        "BoolQ",
        "BoolQ",
        (
            {"question": "is it red", "passage": "Grass is green.", "answer": False, "title": "Grass"},
            {"question": "is it green", "passage": "Grass is green.", "answer": True},
        ),
        "user: Grass is green.\nis it red / assistant: no",
        references=("no",),
        passed=("title",),
    ),
    Case(
        "TriviaQA",
        "TriviaQA without evidence",
        one(
            question="What?",
            question_id="t_1",
            question_source="x",
            entity_pages={"title": [], "wiki_context": []},
            search_results={"description": []},
            answer={"value": "red", "aliases": ["red", "scarlet"], "normalized_value": "red", "type": "Text"},
        ),
        "user: What? / assistant: red",
        references=("red", "red", "scarlet"),
        passed=("normalized_value", "question_id", "question_source", "type"),
    ),
    Case(
        "GSM8K",
        "GSM8K",
        one(question="What?", answer="1 + 1 = 2\n#### 2"),
        "user: What? / assistant: 1 + 1 = 2\n#### 2",
    ),
    Case(
        "TruthfulQA",
        "TruthfulQA",
        one(
            type="x",
            category="y",
            question="What?",
            best_answer="red",
            correct_answers=["red"],
            incorrect_answers=["blue"],
        ),
        "user: What? / assistant: red",
        references=("red",),
        category="y",
        passed=("correct_answers", "incorrect_answers", "type"),
    ),
    Case(
        "an answer of its own next to several",
        "merged files",
        one(question="What?", answer="no", answers=["red"]),
        refused='"answer" is none of "answers": choose one with --ignore-field for the other.',
    ),
    Case(
        "a boolean answer",
        "one's own files",
        one(question="Is it?", answer=True),
        refused='"answer" is a boolean, and its wording is not known: write the answer, such as "yes" or "no".',
    ),
    Case(
        "a class as the answer",
        "classification sets",
        one(question="What mood?", label="cheerful"),
        refused='"label" holds content that is not read (the record is read as a prompt and its answer, by '
        '"question"): say what it is with --map, such as --map answer=label, or pass it over with '
        "--ignore-field label.",
    ),
    Case(
        "MATH with a short answer",
        "MATH-500, AIME",
        one(problem="How many?", solution="One and one, so 2.", answer="2"),
        "user: How many? / assistant: One and one, so 2.",
        references=("2",),
        note="calibration takes the worked `solution`, a test the short `answer`",
    ),
    Case(
        "MATH with several short answers",
        "OlympiadBench-like files",
        one(problem="How many?", solution="One and one, so 2.", answer=["2", "two"]),
        "user: How many? / assistant: One and one, so 2.",
        references=("2", "two"),
    ),
    Case(
        "NuminaMath",
        "NuminaMath-CoT",
        one(
            source="olympiads",
            problem="How many?",
            solution="One and one, so 2.",
            messages=[{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "One and one, so 2."}],
        ),
        "user: How many? / assistant: One and one, so 2.",
        passed=("messages", "source"),
        note="`messages` say the same once more, and are passed over",
    ),
    Case(
        "NuminaMath with messages of their own",
        "merged files",
        one(problem="How many?", solution="2", messages=[{"role": "user", "content": "Who?"}]),
        refused='"messages" holds content that is not read (the record is read as MATH, by "problem", "solution"): '
        "pass it over with --ignore-field messages.",
    ),
    Case(
        "a table of numbers",
        "table questions",
        one(question="How many?", table=[["1", "2"], ["3", "4"]], answer="4"),
        refused='"table" holds content that is not read (the record is read as a prompt and its answer, by '
        '"question", "answer"): say what it is with --map, such as --map context=table, or pass it over with '
        "--ignore-field table.",
    ),
)
