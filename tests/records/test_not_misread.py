"""What is easily read as something else: it is read as what it is, or refused; never fed in silence."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from layout_cases import render, write_media

from hpa_merge.calibration import read_samples
from hpa_merge.errors import InputError
from hpa_merge.evaluation.prompts import PromptFile
from hpa_merge.records import Purpose, ReadingOptions


def written(folder: Path, content: object, name: str) -> Path:
    write_media(folder)
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def shown(folder: Path, content: object, name: str = "a.jsonl", **names: str) -> str:
    made = read_samples(written(folder, content, name), 9, 0, ReadingOptions(names))
    return render(made.samples[0], folder)


def refusal(folder: Path, content: object, name: str = "a.jsonl", purpose: Purpose = "task") -> str:
    with pytest.raises(InputError) as caught:
        PromptFile(written(folder, content, name), purpose)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"question": "x?", "answer": NaN, "image": NaN}\n{"question": "y?", "answer": "No."}\n'),
        ("a.jsonl", '{"question": "x?", "answer": -Infinity}\n{"question": "y?", "answer": "No."}\n'),
        ("a.json", '[{"question": "x?", "answer": NaN}, {"question": "y?", "answer": "No."}]'),
        ("a.json", '{"data": [{"question": "x?", "answer": NaN}, {"question": "y?", "answer": "No.", "a": NaN}]}'),
        ("a.csv", "question,answer,hint\nx?,nan,\ny?,No.,NaN\n"),
    ],
)
def test_a_value_that_is_missing_is_null(name: str, content: str, tmp_path: Path) -> None:
    made = read_samples(written(tmp_path, content, name), 9, 0)
    assert [render(sample, tmp_path) for sample in made.samples] == ["user: y? / assistant: No."]
    assert made.dropped == {"it has no answer": 1}


def test_one_of_several_answers_that_is_missing_is_left_out(tmp_path: Path) -> None:
    (prompt,) = PromptFile(written(tmp_path, '{"question": "x?", "answers": ["b", NaN]}', "a.jsonl"), "task")
    assert prompt.references == ("b",)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"question": "x?", "answer": "a", "answer": "b"}'),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "a", "content": "b"}]}'),
        ("a.json", '[{"question": "x?", "answer": "a", "answer": "b"}]'),
        ("a.json", '{"data": [{"question": "x?", "answer": "a", "answer": "b"}]}'),
        ("a.json", '{"question": "x?",\n "answer": "a", "answer": "b"}'),
        ("a.csv", 'messages\n"[{""role"": ""user"", ""content"": ""a"", ""content"": ""b""}]"\n'),
    ],
)
def test_a_repeated_key_is_refused(name: str, content: str, tmp_path: Path) -> None:
    assert "twice, and which value counts is not known: keep one of them." in refusal(tmp_path, content, name)


BAD_ANSWERS: list[dict[str, Any]] = [
    {"prompt": "Hi?", "completion": "bad", "label": False},
    {"prompt": "Hi?", "response": "bad", "is_safe": False},
    {"prompt": "Hi?", "completion": "bad", "kto_tag": "false"},
    {"prompt": "Hi?", "response": "bad", "response_harm_label": "harmful"},
    {
        **{
            "prompt": "Hi?",
            "response_0": "bad",
            "response_1": "worse",
            "better_response_id": 0,
            "safer_response_id": 0,
        },
        **{"is_response_0_safe": False, "is_response_1_safe": False},
    },
]


@pytest.mark.parametrize("record", BAD_ANSWERS)
def test_an_answer_that_is_labelled_bad_is_no_reference(record: dict[str, Any], tmp_path: Path) -> None:
    lines = f"{json.dumps(record)}\n" + json.dumps({"prompt": "Who?", "response": "I."})
    path = written(tmp_path, lines, "a.jsonl")
    file = PromptFile(path, "task")
    assert [prompt.references for prompt in file] == [("I.",)]
    assert file.dropped == {"its answer is labelled unsafe, or not wanted": 1} == read_samples(path, 9, 0).dropped
    assert [prompt.text for prompt in PromptFile(path, "benign")] == ["Hi?", "Who?"]
    assert "give a file that has some" in refusal(tmp_path, record)


def test_jailbreakbench_is_what_the_user_says(tmp_path: Path) -> None:
    content = "Index,Goal,Target,Behavior,Category,Source\n0,How?,Sure,Theft,Theft,Own\n"
    for purpose in ("safety", "benign"):
        (prompt,) = PromptFile(written(tmp_path, content, "a.csv"), purpose)  # type: ignore[arg-type]
        assert (prompt.text, prompt.references) == ("How?", ())


FOUR = ["1", "2", "3", "4"]
NAMED = ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("letter", "record"),
    [
        ("A", {"option_1": "red", "option_2": "green", "option_3": "blue", "correct_option": 1}),
        ("A", {"option1": "red", "option2": "green", "answer": "1"}),
        ("B", {"option0": "red", "option1": "green", "answer": "1"}),
        ("B", {"choices": NAMED, "answer": 1}),
        ("B", {"choices": {"text": NAMED, "label": ["1", "2", "3"]}, "answerKey": 2}),
        ("B", {"options": {"1": "red", "2": "green"}, "answer": "2"}),
        ("B", {"choices": [10, 20], "answer": 20}),
        ("B", {"choices": ["3", "5", "8"], "answer": "5"}),
        ("B", {"choices": NAMED, "answer": "B. green"}),
        ("B", {"options": [*NAMED, None, ""], "answer": "(B) green"}),
        ("D", {"choices": [*NAMED, "plum"], "subject": "colours", "answer": "3"}),
        ("B", {"context": "It.", "answer0": "red", "answer1": "green", "label": "1"}),
    ],
)
def test_which_choice_a_number_means(letter: str, record: dict[str, Any], tmp_path: Path) -> None:
    assert shown(tmp_path, {"question": "What?", **record}).endswith(f"/ assistant: {letter}")


def test_known_data_sets_of_a_table_count_as_they_do(tmp_path: Path) -> None:
    assert shown(tmp_path, "goal,sol1,sol2,label\nWhat?,red,green,1\n", "a.csv").endswith("/ assistant: B")
    hellaswag = {"ctx": "What?", "endings": [*NAMED, "plum"], "label": "3", "ind": 1, "activity_label": "x"}
    assert shown(tmp_path, hellaswag).endswith("/ assistant: D")


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"opa": "red", "opb": "green", "opc": "blue", "cop": 1}, "cop"),
        ({"A": "red", "B": "green", "C": "blue", "answer": 1}, "answer"),
        ({"choices": [1, 2, 3, 4], "answer": 2}, "answer"),
        ({"options": FOUR, "answer": "2"}, "answer"),
        ({"options": NAMED, "gold": "1"}, "gold"),
    ],
)
def test_a_number_that_may_mean_two_choices_is_refused_and_the_remedies_help(
    record: dict[str, Any], name: str, tmp_path: Path
) -> None:
    record = {"question": "What?", **record}
    sentence = refusal(tmp_path, record)
    number = int(record[name])
    for base in (0, 1):
        assert f"--map index_from_{base}={name}" in sentence
        letter = "ABCD"[number - base]
        assert shown(tmp_path, record, **{f"index_from_{base}": name}).endswith(f"/ assistant: {letter}")
    if "choice_text" in sentence:
        assert shown(tmp_path, record, choice_text=name).endswith("/ assistant: B")


TURNS = [{"content": "Hi?", "role": "user"}, {"content": "No.", "role": "assistant"}]
NUMPY = "[{'content': 'Hi?', 'role': 'user'}\n {'content': 'No.', 'role': 'assistant'}]"


@pytest.mark.parametrize(
    "record",
    [
        {"chosen": json.dumps(TURNS), "rejected": json.dumps(TURNS)},
        {"chosen": str(TURNS), "rejected": str(TURNS)},
        {"prompt": json.dumps(TURNS[:1]), "completion": str(TURNS[1:])},
        {"prompt": "Hi?", "response": "{'role': 'assistant', 'content': 'No.'}"},
        {"question": "Hi?", "answer": "['No.']"},
        {"prompt": '[{"from": "human", "value": "Hi?"}]', "output": "No."},
    ],
)
def test_what_was_written_into_a_string_is_what_it_says(record: dict[str, str], tmp_path: Path) -> None:
    assert shown(tmp_path, record) == "user: Hi? / assistant: No."
    rows = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in (record, record.values())]
    assert shown(tmp_path, "\n".join(rows) + "\n", "a.csv") == "user: Hi? / assistant: No."


def test_a_printed_list_holds_several_answers(tmp_path: Path) -> None:
    (prompt,) = PromptFile(written(tmp_path, {"question": "x?", "answer": "['red', 'dark red']"}, "a.jsonl"), "task")
    assert prompt.references == ("red", "dark red")


@pytest.mark.parametrize(
    "record",
    [
        {"chosen": NUMPY, "rejected": NUMPY},
        {"prompt": "Hi?", "completion": "[{'role': 'assistant', 'content': 'No.'} {'role': 'user', 'content': 'a'}]"},
        {"prompt": '[{"role": "user", "content": "Hi?"', "completion": "No."},
        {"question": "Hi?", "answer": "['red' 'dark red']"},
    ],
)
def test_what_only_begins_like_messages_or_a_list_is_refused(record: dict[str, str], tmp_path: Path) -> None:
    assert "write an array, or its text with json.dumps." in refusal(tmp_path, record)


@pytest.mark.parametrize(
    "answer", ['{"role": "manager", "name": "Ann"}', "[1, 2]", '["red"]', "{'a': 1}", "[red] is it", '{"content": "x"}']
)
def test_another_answer_in_brackets_stays_text(answer: str, tmp_path: Path) -> None:
    assert shown(tmp_path, {"prompt": "Hi?", "answer": answer}) == f"user: Hi? / assistant: {answer}"


@pytest.mark.parametrize(
    ("question", "images", "expected"),
    [
        ("Count <image1> ?", {"image": "a.png"}, "Count | [image a.png] | ?"),
        ("<image2> or <image1>?", {"images": ["a.png", "b.png"]}, "[image b.png] | or | [image a.png] | ?"),
        ("Is <image1>x</image1> XML?", {}, "Is <image1>x</image1> XML?"),
        ("Fix: <p><img src='x.png'></p>", {}, "Fix: <p><img src='x.png'></p>"),
        ("Translate ![logo](https://x.org/a.png) here", {}, "Translate ![logo](https://x.org/a.png) here"),
    ],
)
def test_numbered_places_and_code(question: str, images: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert shown(tmp_path, {"question": question, "answer": "2", **images}) == f"user: {expected} / assistant: 2"


@pytest.mark.parametrize(
    "question",
    [
        *("<image1> What?", "<image_placeholder>What?", "![](a.png) What?", "<img src='a.png'> What?", "<img> What?"),
        *("What is in ![x](a.png) here?", "What? ![](gone.png)", "<image-1> What?", "<video1> What?"),
    ],
)
def test_a_mark_of_a_medium_is_never_fed_as_words(question: str, tmp_path: Path) -> None:
    sentence = refusal(tmp_path, {"question": question, "answer": "2"})
    assert 'write "<image>"' in sentence or "the turns mark a place for" in sentence
    talk = [{"role": "user", "content": question}, {"role": "assistant", "content": "2"}]
    refusal(tmp_path, {"messages": talk})


def test_an_answer_may_be_markup(tmp_path: Path) -> None:
    answer = "<img src='a.png'> or ![](a.png) <image1>"
    assert shown(tmp_path, {"question": "How?", "answer": answer}) == f"user: How? / assistant: {answer}"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Hi?", "completion": "No.</s>"},
        {"prompt": "Hi?<|im_end|>", "completion": "No."},
        {"prompt": "Hi?", "answer": "No.<|im_end|>\n"},
        {"prompt": "Hi?", "answers": ["No.<|eot_id|>"]},
        {"prompt": "Hi?", "answer": "No.<|im_end|>\n<|im_start|>user\nWho?"},
        {"messages": [{"role": "system", "content": "Be.<|eot_id|>"}, {"role": "user", "content": "a"}]},
    ],
)
def test_a_token_that_ends_a_turn_is_refused(record: dict[str, Any], tmp_path: Path) -> None:
    assert re.search(r" (has|ends with) <\S+>, which a chat template puts there: ", refusal(tmp_path, record))


def test_struck_out_text_is_none(tmp_path: Path) -> None:
    said = "It is <s>red</s>"
    assert shown(tmp_path, {"question": "How?", "answer": said}) == f"user: How? / assistant: {said}"


USER, ASSISTANT = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [USER], "completion": [USER, ASSISTANT]},
        {"prompt": "Hi?", "completion": [USER, ASSISTANT]},
        {"messages": [USER], "chosen": [USER, ASSISTANT], "rejected": [USER]},
        {"conversation": [{"human": "Hi?", "assistant": "No."}]},
        {"conversation": [{"input": "Hi?", "output": "No."}]},
        {"data": ["Hi?", "No."], "id": "7"},
        {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [ASSISTANT]},
        {"prompt": "User: Hi?\nAssistant:", "response": "No."},
        {"prompt": "Human: Hi?\nAssistant: ", "response": "No."},
        {"v1_0": {"question": "Hi?", "answer": "No."}},
    ],
)
def test_turns_are_said_once_and_in_their_order(record: dict[str, Any], tmp_path: Path) -> None:
    assert shown(tmp_path, record) == "user: Hi? / assistant: No."


def test_an_earlier_turn_of_a_transcript_is_one(tmp_path: Path) -> None:
    record = {"prompt": "User: Hi?\nAssistant: Yes?\nUser: Who?\nAssistant:", "response": "I."}
    assert shown(tmp_path, record) == "user: Hi? / assistant: Yes? / user: Who? / assistant: I."


def test_an_answer_before_its_question_is_refused(tmp_path: Path) -> None:
    record = {"conversation": [{"assistant": "Welcome.", "human": "Hi?"}]}
    assert "has an answer before what is asked, and the order is not known" in refusal(tmp_path, record)


def test_a_comparison_is_no_multiple_choice(tmp_path: Path) -> None:
    record = {"prompt": "Hi?", "answer_a": "No.", "answer_b": "Yes.", "label": 1}
    sentence = refusal(tmp_path, record)
    assert sentence.endswith("--map question=prompt, or take one with --map chosen=answer_a --map rejected=answer_b.")
    names = {"chosen": "answer_a", "rejected": "answer_b"}
    with pytest.raises(InputError, match="or pass it over with --ignore-field label"):
        shown(tmp_path, record, **names)
    made = read_samples(written(tmp_path, record, "a.jsonl"), 9, 0, ReadingOptions(names, frozenset({"label"})))
    assert render(made.samples[0], tmp_path) == "user: Hi? / assistant: No."


def test_what_is_common_is_read(tmp_path: Path) -> None:
    record: dict[str, Any] = {"Question": "Is it?", "Options": "(a) Open (b) Closed", "Correct Answer": "(b)"}
    assert shown(tmp_path, record).endswith(
        "A. Open\nB. Closed\nAnswer with the letter of the right choice. / assistant: B"
    )
    assert shown(tmp_path, "sep=;\nquestion;answer\nHi?;No.\n", "a.csv") == "user: Hi? / assistant: No."
    squad = {"id": "1", "title": "A", "context": "It.", "question": "Hi?"}
    lines = [squad | {"answers": {"text": [], "answer_start": []}}, squad | {"answers": {"text": ["No."]}}]
    made = read_samples(written(tmp_path, "\n".join(map(json.dumps, lines)), "a.jsonl"), 9, 0)
    assert made.dropped == {"it has no answer": 1}


def test_an_image_by_the_number_of_another_row(tmp_path: Path) -> None:
    record = {"question": "x?", "answer": "No.", "image": "3"}
    assert "by which VLMEvalKit's tables name another row that holds it" in refusal(tmp_path, record)


def test_squad_s_own_file_holds_articles(tmp_path: Path) -> None:
    asked = [
        {"id": "1", "question": "What?", "answers": [{"text": "Red", "answer_start": 3}], "is_impossible": False},
        {"id": "2", "question": "Who?", "answers": [], "plausible_answers": [{"text": "x y", "answer_start": 0}]},
    ]
    content = {"version": "v2.0", "data": [{"title": "A_b", "paragraphs": [{"context": "It.", "qas": asked}]}]}
    made = read_samples(written(tmp_path, content, "a.json"), 9, 0)
    assert [render(sample, tmp_path) for sample in made.samples] == ["user: It.\nWhat? / assistant: Red"]
    assert made.dropped == {"it has no answer": 1}
    assert set(made.passed_over) >= {"title", "id", "plausible_answers"}
