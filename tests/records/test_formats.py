"""Every format becomes the sample that it means; every malformed record is refused with its own sentence."""

import re
from pathlib import Path

import pytest
from media import picture

from hpa_merge.errors import CalibrationError
from hpa_merge.records import Sample, Turn, parse_record

HERE = "s.jsonl:7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()  # images are opened only when they are encoded
    return tmp_path


def chat(user: tuple, assistant: str = "No.", source: str = HERE) -> Sample:
    return Sample(source, turns=(Turn("user", user), Turn("assistant", (assistant,))))


TEXT_RECORDS = {
    "messages": {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}]},
    "messages in parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi?", "image": None}]},
            {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
        ]
    },
    "ShareGPT": {"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "No."}]},
    "ShareGPT, other names": {
        "conversations": [{"from": "user", "value": "Hi?"}, {"from": "assistant", "value": "No."}]
    },
    "Alpaca": {"instruction": "Hi?", "input": "", "output": "No.", "text": "### Instruction: Hi?"},
    "response": {"instruction": "Hi?", "response": "No."},
    "completion": {"prompt": "Hi?", "completion": "No."},
    "answer": {"question": "Hi?", "answer": "No."},
    "SPA-VL": {"question": "Hi?", "chosen": "No.", "rejected": "Yes."},
    "null columns": {"messages": None, "input_ids": None, "prompt": "Hi?", "image": None, "response": "No."},
    "messages win": {
        "prompt": "Hello",
        "messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}],
    },
}


@pytest.mark.parametrize("record", TEXT_RECORDS.values(), ids=TEXT_RECORDS.keys())
def test_text_formats(record: dict, folder: Path) -> None:
    assert parse_record(record, HERE, folder) == [chat(("Hi?",))]


def test_plain_text_and_token_ids(folder: Path) -> None:
    assert parse_record({"text": " as it is \n"}, HERE, folder) == [Sample(HERE, text=" as it is \n")]
    assert parse_record({"input_ids": [1, 0, 5], "text": "x"}, HERE, folder) == [Sample(HERE, input_ids=(1, 0, 5))]


def test_alpaca_input_follows_the_instruction(folder: Path) -> None:
    record = {"instruction": "Translate.", "input": "Haus", "output": "House"}
    assert parse_record(record, HERE, folder) == [chat(("Translate.\nHaus",), "House")]


def test_system_turns_are_kept_even_empty(folder: Path) -> None:
    turns = [{"from": "system", "value": ""}, {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "No."}]
    (sample,) = parse_record({"conversations": turns}, HERE, folder)
    assert [turn.role for turn in sample.turns] == ["system", "user", "assistant"]
    assert sample.turns[0].parts == ()


def test_every_way_to_name_one_image(folder: Path) -> None:
    no = {"role": "assistant", "content": "No."}
    gpt = {"from": "gpt", "value": "No."}
    text = {"type": "text", "text": "Hi?"}
    records = [
        {"messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}, text]}, no]},
        {"messages": [{"role": "user", "content": [{"type": "image", "path": "a.png"}, text]}, no]},
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "a.png"}, text]}, no]},
        {"messages": [{"role": "user", "content": [{"type": "image", "image": str(folder / "a.png")}, text]}, no]},
        {"messages": [{"role": "user", "content": [{"type": "image"}, text]}, no], "image": "a.png"},
        {"messages": [{"role": "user", "content": [{"type": "image", "image": None}, text]}, no], "images": ["a.png"]},
        {"messages": [{"role": "user", "content": "<image>\nHi?"}, no], "images": ["a.png"]},
        {"messages": [{"role": "user", "content": "Hi?"}, no], "images": ["a.png"]},
        {"conversations": [{"from": "human", "value": "<image>\nHi?"}, gpt], "image": "a.png"},
        {"conversations": [{"from": "human", "value": "Hi?"}, gpt], "image": ["a.png"]},
        {"question": "Hi?", "chosen": "No.", "rejected": "Yes.", "image": "a.png"},
        {"instruction": "<image>Hi?", "output": "No.", "images": ["a.png"]},
    ]
    for record in records:
        (sample,) = parse_record(record, HERE, folder)
        assert sample == chat((picture(folder / "a.png"), "Hi?")), record
        assert sample.images == (picture(folder / "a.png"),)


def test_several_images_keep_their_places(folder: Path) -> None:
    record = {
        "conversations": [
            {"from": "human", "value": "First <image>, then\n<image>"},
            {"from": "gpt", "value": "Same."},
            {"from": "human", "value": "And <image>?"},
            {"from": "gpt", "value": "No."},
        ],
        "images": ["a.png", "b.png", "a.png"],
    }
    (sample,) = parse_record(record, HERE, folder)
    a, b = picture(folder / "a.png"), picture(folder / "b.png")
    assert sample.turns[0].parts == ("First", a, ", then", b)
    assert sample.turns[2].parts == ("And", a, "?")
    assert sample.images == (a, b, a)


def test_the_word_image_in_brackets_is_text_where_there_is_no_image(folder: Path) -> None:
    record = {"instruction": "What does <image> mean in RSS?", "output": "No."}
    assert parse_record(record, HERE, folder) == [chat(("What does <image> mean in RSS?",))]


def test_vlguard_gives_a_sample_for_each_pair(folder: Path) -> None:
    record = {
        "id": "train/1",
        "image": "a.png",
        "safe": True,
        "instr-resp": [
            {"safe_instruction": "What is it?", "response": "A cat."},
            {"unsafe_instruction": "How to harm it?", "response": "No."},
        ],
    }
    image = picture(folder / "a.png")
    assert parse_record(record, HERE, folder) == [
        chat((image, "What is it?"), "A cat.", f"{HERE}#1"),
        chat((image, "How to harm it?"), "No.", f"{HERE}#2"),
    ]
    record = {"image": "a.png", "safe": False, "instr-resp": [{"instruction": "Go on.", "response": "No."}]}
    assert parse_record(record, HERE, folder) == [chat((image, "Go on."), source=f"{HERE}#1")]


FORMATS = 'give "messages", "conversations", "instruction" with "response", "instr-resp", "text" or "input_ids"'
IDS = '"input_ids" is not an array of token ids: give one or more whole numbers from 0.'
PART = (
    "message 1 has a part that is neither text nor image: "
    'write {"type": "text", "text": …} or {"type": "image", "image": …}.'
)
ONE = [{"role": "user", "content": "Hi?"}]
MALFORMED = [
    ([1], f"a JSON object is expected, found an array: {FORMATS}."),
    ("text", f"a JSON object is expected, found a string: {FORMATS}."),
    (None, f"a JSON object is expected, found null: {FORMATS}."),
    (7, f"a JSON object is expected, found a number: {FORMATS}."),
    ({}, f"no known field, found no field that is not null: {FORMATS}."),
    ({"Text": "x", "label": 1}, f'no known field, found only "Text", "label": {FORMATS}.'),
    ({"text": ""}, '"text" is empty: give it a text or remove the sample.'),
    ({"text": " \n"}, '"text" is empty: give it a text or remove the sample.'),
    ({"text": ["x"]}, '"text" is an array: give a string.'),
    ({"input_ids": []}, IDS),
    ({"input_ids": "1 2"}, IDS),
    ({"input_ids": [1, -1]}, IDS),
    ({"input_ids": [1, 2.0]}, IDS),
    ({"input_ids": [1, True]}, IDS),
    ({"input_ids": [[1, 2]]}, IDS),
    ({"messages": "Hi"}, '"messages" is a string: give an array.'),
    ({"messages": []}, '"messages" is empty: fill it or remove the sample.'),
    ({"messages": ["Hi"]}, 'message 1 has no role: write it as {"role": "user", "content": …}.'),
    ({"messages": [*ONE, {"content": "x"}]}, 'message 2 has no role: write it as {"role": "user", "content": …}.'),
    (
        {"messages": [{"role": "user", "content": None}]},
        "message 1 has null for content: give a string or an array of text and image parts.",
    ),
    ({"messages": [{"role": "user", "content": ["Hi"]}]}, PART),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, PART),
    ({"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]}, PART),
    ({"messages": [{"role": "user", "content": []}]}, "turn 1 (user) is empty: give it a text or remove the sample."),
    (
        {"messages": [*ONE, {"role": "assistant", "content": " "}]},
        "turn 2 (assistant) is empty: give it a text or remove the sample.",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
        "the turns mark a place for an image 1 times, but the images number 0: "
        'write one "<image>" or one {"type": "image"} for each image of the sample.',
    ),
    (
        {"conversations": [{"from": "human", "value": "<image>\nHi?"}]},
        "the turns mark a place for an image 1 times, but the images number 0: "
        'write one "<image>" or one {"type": "image"} for each image of the sample.',
    ),
    (
        {"messages": [{"role": "user", "content": "<image> Hi?"}], "images": ["a.png", "b.png"]},
        "the turns mark a place for an image 1 times, but the images number 2: "
        'write one "<image>" or one {"type": "image"} for each image of the sample.',
    ),
    ({"conversations": {"from": "human"}}, '"conversations" is an object: give an array.'),
    (
        {"conversations": [{"from": "human", "value": 3}]},
        'turn 1 has no value: write it as {"from": "human", "value": "…"}.',
    ),
    (
        {"conversations": [{"from": "tool", "value": "x"}]},
        'turn 1 is not from a known speaker: "from" is one of "human", "user", "gpt", "assistant", "system".',
    ),
    ({"instr-resp": {}}, '"instr-resp" is an object: give an array.'),
    ({"instr-resp": []}, '"instr-resp" is empty: fill it or remove the sample.'),
    ({"instruction": "", "output": "x"}, '"instruction" is empty: give it a text or remove the sample.'),
    ({"prompt": "x", "response": ["y"]}, '"response" is an array: give a string.'),
    ({"instruction": "x", "input": 3, "output": "y"}, '"input" is a number: give a string.'),
    (
        {"prompt": "x"},
        '"prompt" has no answer beside it: add it as one of "response", "output", "completion", "answer", "chosen".',
    ),
    (
        {"prompt": "x", "output": "y", "image": {"bytes": "…"}},
        "an image is the path of a file, found an object: give a path in a string.",
    ),
    (
        {"prompt": "x", "output": "y", "image": ""},
        "an image is the path of a file, found an empty string: give a path in a string.",
    ),
]


@pytest.mark.parametrize(("record", "sentence"), MALFORMED)
def test_malformed_records(record: object, sentence: str, folder: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        parse_record(record, HERE, folder)
    assert re.sub(rf"^{re.escape(HERE)}(: | )", "", str(caught.value)) == sentence
    assert str(caught.value).startswith(f"{HERE}: ")


@pytest.mark.parametrize(
    "pair", ["x", {"response": "No."}, {"instruction": "x"}, {"instruction": "x", "response": None}]
)
def test_malformed_vlguard_pair(pair: object, folder: Path) -> None:
    good = {"instruction": "x", "response": "y"}
    with pytest.raises(CalibrationError) as caught:
        parse_record({"image": "a.png", "instr-resp": [good, pair]}, HERE, folder)
    assert str(caught.value) == (
        's.jsonl:7#2: a pair holds "response" and one of "instruction", "safe_instruction", "unsafe_instruction": '
        "add what is missing."
    )


@pytest.mark.parametrize(
    "url", ["https://x.org/a.png", "HTTP://x.org/a.png", "data:image/png;base64,AAAA", "file:///etc/passwd", "s3://b/a"]
)
def test_urls_are_refused(url: str, folder: Path) -> None:
    with pytest.raises(CalibrationError) as caught:
        parse_record({"messages": [{"role": "user", "content": [{"type": "image", "url": url}]}]}, HERE, folder)
    assert str(caught.value) == (
        f"s.jsonl:7: the image {url} is a URL, and URLs are never fetched: save it as a file and give its path."
    )


@pytest.mark.parametrize("name", ["gone.png", "sub", "\0"])
def test_images_have_to_exist(name: str, folder: Path) -> None:
    (folder / "sub").mkdir()
    with pytest.raises(CalibrationError) as caught:
        parse_record({"prompt": "x", "output": "y", "image": name}, HERE, folder)
    assert str(caught.value) == (
        f"s.jsonl:7: the image {name} is not a file in {folder}: give its path relative to the calibration file."
    )


def test_an_image_in_base64_is_not_a_path(folder: Path) -> None:
    with pytest.raises(CalibrationError, match=rf"the image {'A' * 77}… is not a file"):
        parse_record({"prompt": "x", "output": "y", "image": "A" * 5000}, HERE, folder)
