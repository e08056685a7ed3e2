"""Malformed records and media: each is refused with its own sentence."""

import re
from pathlib import Path

import pytest
from layout_cases import PNG, PNG64, write_media

from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, ReadingOptions, parse_record

HERE = "s.jsonl:7"
NO = {"role": "assistant", "content": "No."}
ONE = [{"role": "user", "content": "Hi?"}]
FORMATS = 'give "messages", "conversations", "instruction" with "response", "instr-resp", "text" or "input_ids"'
IDS = '"input_ids" is not an array of token ids: give one or more whole numbers from 0.'
PART = (
    "message 1 has a part that is no text, image, video or sound: "
    'write {"type": "text", "text": …} or {"type": "image", "image": …}.'
)
PLACES = (
    "the turns mark a place for an image {} times, but the images number {}: "
    'write one "<image>" or one {{"type": "image"}} for each image of the sample.'
)
PAIR = (
    'pair {} has to hold "response" and one of "instruction", "safe_instruction", "unsafe_instruction": '
    "add what is missing."
)


@pytest.fixture(name="folder")
def folder_of_media(tmp_path: Path) -> Path:
    write_media(tmp_path)
    return tmp_path


def refusal(record: object, folder: Path, **options: object) -> str:
    with pytest.raises(CalibrationError) as caught:
        parse_record(record, HERE, folder, ReadingOptions(**options))  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{HERE}: ")
    return str(caught.value).removeprefix(f"{HERE}: ")


MALFORMED = [
    ([1], f"a JSON object is expected, found an array: {FORMATS}."),
    ("text", f"a JSON object is expected, found a string: {FORMATS}."),
    (None, f"a JSON object is expected, found null: {FORMATS}."),
    (7, f"a JSON object is expected, found a number: {FORMATS}."),
    ({}, f"no known field, found no field that is not null: {FORMATS}."),
    (
        {"image": "a.png", "caption": "A cat."},
        '"caption" has no prompt that it answers: add "prompt" and name "caption" with --map answer=caption.',
    ),
    ({"answer": "No."}, '"answer" has no prompt that it answers: add "prompt".'),
    ({"text": ""}, '"text" is empty: give it a text or remove the sample.'),
    ({"text": " \n"}, '"text" is empty: give it a text or remove the sample.'),
    ({"text": ["x"]}, '"text" is an array: give a string.'),
    ({"text": 3}, '"text" is a number: give a string.'),
    ({"input_ids": []}, IDS),
    ({"input_ids": "1 2"}, IDS),
    ({"input_ids": [1, -1]}, IDS),
    ({"input_ids": [1, 2.0]}, IDS),
    ({"input_ids": [1, True]}, IDS),
    ({"input_ids": [[1, 2]]}, IDS),
    ({"messages": "Hi"}, '"messages" is a string: give an array.'),
    ({"messages": "[1"}, '"messages" is a string: give an array.'),
    ({"messages": []}, '"messages" is empty: fill it or remove the sample.'),
    ({"messages": ["Hi"]}, 'message 1 has no role: write it as {"role": "user", "content": …}.'),
    ({"messages": [*ONE, {"content": "x"}]}, 'message 2 has no role: write it as {"role": "user", "content": …}.'),
    (
        {"messages": [{"role": "user", "content": 3}]},
        "message 1 has a number for content: give a string or an array of text and image parts.",
    ),
    ({"messages": [{"role": "user", "content": [3]}]}, PART),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, PART),
    (
        {"messages": [{"role": "user", "content": []}, NO]},
        "turn 1 (user) is empty: give it a text or remove the sample.",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, NO]}, PLACES.format(1, 0)),
    (
        {"messages": [*ONE, NO], "images": ["a.png"], "tools": "none"},
        '"tools" is no array of tools: give objects with a name, or their JSON.',
    ),
    (
        {"messages": [*ONE, NO], "tools": [{"type": "function"}]},
        '"tools" has a tool without a name: give {"name": …, "parameters": …}.',
    ),
    (
        {"messages": [{"role": "assistant", "content": ""}], "images": ["a.png"]},
        "it has no turn that says anything: remove the record.",
    ),
    ({"messages": [{"role": "user", "content": "<video> <image>"}, NO], "videos": ["v.mp4"]}, PLACES.format(1, 0)),
    ({"conversations": {"from": "human"}}, '"conversations" is an object: give an array.'),
    (
        {"conversations": [{"from": "human", "value": 3}]},
        'turn 1 has no value: write it as {"from": "human", "value": "…"}.',
    ),
    ({"chat": [["Hi?", "No."]]}, 'turn 1 has no role: write it as {"from": "human", "value": "…"}.'),
    (
        {"prompt": "x", "response": "y", "history": ["z"]},
        '"history" is no array of pairs: write [question, answer] for each earlier turn.',
    ),
    ({"instr-resp": {}}, '"instr-resp" is an object: give an array.'),
    ({"instr-resp": []}, '"instr-resp" is empty: fill it or remove the sample.'),
    ({"instr-resp": ["x"]}, PAIR.format(1)),
    ({"instr-resp": [{"instruction": "x", "response": "y"}, {"response": "No."}]}, PAIR.format(2)),
    ({"instr-resp": [{"instruction": "x"}]}, PAIR.format(1)),
    ({"instr-resp": [{"instruction": "x", "response": None}]}, PAIR.format(1)),
    ({"instruction": "", "output": "x"}, '"instruction" is empty: give it a text or remove the sample.'),
    ({"prompt": "x", "response": ["y"]}, '"response" is an array: give a string.'),
    ({"instruction": "x", "input": 3, "output": "y"}, '"input" is a number: give a string.'),
    ({"question": "x", "choices": ["y"], "answer": "y"}, '"choices" has 1 entries: give 2 to 26.'),
    (
        {"question": "x", "choices": ["B", "A"], "answer": "A"},
        "the answer 'A' may be two of the choices, by letter or by text: write its letter, and choices whose texts "
        "differ and are no letters.",
    ),
    (
        {"question": "x", "choices": ["y", "z"], "answer": ["A", "B"]},
        "an answer that is an array is none of the choices: give a letter from A to B, or the text of a choice.",
    ),
    (
        {"Prompt": "x", "prompt": "y", "response": "z"},
        '"Prompt" and "prompt" are two fields for one thing: choose with --ignore-field Prompt or '
        "--ignore-field prompt.",
    ),
    (
        {"prompt": "x", "response_0": "y", "response_1": "z"},
        'it has two answers and does not say which to use: add "safer_response_id" and "better_response_id".',
    ),
    (
        {"prompt": "x", "response_0": "y", "response_1": "z", "better_response_id": 2},
        '"better_response_id" is 2: give 0 or 1.',
    ),
    (
        {"vanilla": "x", "adversarial": "", "completion": "y", "data_type": "odd"},
        "\"data_type\" is 'odd': give vanilla_harmful, adversarial_benign or the like.",
    ),
    (
        {"prompt": "x", "output": "y", "image": 5},
        'an image is the path of a file, found a number in "image": give a path in a string.',
    ),
    (
        {"prompt": "x", "output": "y", "image": {"width": 3}},
        '"image" is an object without "bytes", "path" or "url": give an image as the path of a file, found "width".',
    ),
    ({"prompt": "x", "output": "y", "image": {"bytes": "…"}}, 'the bytes in "image" are not base64: write them whole.'),
    (
        {"prompt": "x", "output": "y", "image": "data:image/png;base64,?"},
        'the bytes in "image" are not base64: write them whole.',
    ),
    (
        {"prompt": "x", "output": "y", "image": "data:text/plain,abc"},
        "the image data:text/plain,abc is a data: URL of another kind: give a data: URL of an image.",
    ),
    (
        {"prompt": "x", "output": "y", "video": "a.png"},
        "the video a.png is an image by its name: name the field by what it holds, and give the frames of a video as "
        "one file.",
    ),
]


@pytest.mark.parametrize(("record", "sentence"), MALFORMED)
def test_malformed_records(record: object, sentence: str, folder: Path) -> None:
    assert refusal(record, folder) == sentence


@pytest.mark.parametrize("url", ["https://x.org/a.png", "HTTP://x.org/a.png", "s3://b/a", "ftp://x/a.png"])
def test_urls_are_refused(url: str, folder: Path) -> None:
    sentence = f"the image {url} is a URL, and URLs are never fetched: save it as a file and give its path."
    assert refusal({"messages": [{"role": "user", "content": [{"type": "image", "url": url}]}]}, folder) == sentence
    assert refusal({"question": "x", "answer": "y", "image": url}, folder) == sentence


@pytest.mark.parametrize("name", ["gone.png", "sub", "\0", "A" * 5000, "file:///gone.png"])
def test_images_have_to_exist(name: str, folder: Path) -> None:
    (folder / "sub").mkdir()
    shown = name if len(name) < 80 else f"{'A' * 77}…"
    assert refusal({"prompt": "x", "output": "y", "image": name}, folder) == (
        f"the image {shown} is not a file in {folder}: give its path relative to that folder, or name the folder of "
        "the images with --image-folder."
    )


def test_images_under_another_folder(folder: Path) -> None:
    record = {"prompt": "x", "output": "y", "image": "c.jpg"}
    (example,) = parse_record(record, HERE, folder, ReadingOptions(media_folder=folder / "pics")).examples
    assert example.prompt.images == (Media("image", folder / "pics" / "c.jpg"),)


@pytest.mark.parametrize(
    "value",
    [
        {"bytes": PNG, "path": "gone.png"},
        {"bytes": PNG64, "path": None},
        PNG,
        PNG64,
        f"data:image/png;base64,{PNG64}",
        {"url": f"data:;base64,{PNG64}"},
    ],
)
def test_images_that_the_record_holds(value: object, folder: Path) -> None:
    (example,) = parse_record({"question": "x", "answer": "y", "image": value}, HERE, folder).examples
    assert example.prompt.images == (Media("image", PNG),)


def test_a_name_of_one_s_own_may_hide_none(folder: Path) -> None:
    record = {"ask": "Hi?", "prompt": "Who?", "answer": "No."}
    assert refusal(record, folder, names={"prompt": "ask"}) == (
        '"prompt" and "ask" are two fields for one thing: choose with --ignore-field prompt or --ignore-field ask.'
    )
    options = ReadingOptions({"prompt": "ask"}, frozenset({"prompt"}))
    (example,) = parse_record(record, HERE, folder, options).examples
    assert example.prompt.turns[0].parts == ("Hi?",)


def test_names_of_messages_are_mapped_too(folder: Path) -> None:
    said = [{"who": "user", "words": "Hi?"}, {"who": "assistant", "words": "No."}]
    options = ReadingOptions({"messages": "talk", "role": "who", "content": "words"})
    (example,) = parse_record({"talk": said}, HERE, folder, options).examples
    assert [turn.parts for turn in example.turns] == [("Hi?",)]
    assert example.references == ("No.",)


def test_a_sentence_names_no_more_than_some_fields(folder: Path) -> None:
    record = {"prompt": "Hi?", "response": "No."} | {f"field{number}": "some text" for number in range(20)}
    sentence = refusal(record, folder)
    assert re.search(r'"field5" and 14 more hold content', sentence)
    assert len(sentence) < 400
    unknown = refusal({f"field{number}" * 50: "some text" for number in range(2000)}, folder)
    assert len(unknown) < 2500
    assert "and 1970 more" in unknown
