"""What a chat template makes of a conversation is what transformers makes of it, and nothing is left out in silence."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import family_processors
import pytest
import tiny_processors as tiny
from family_templates import TEMPLATES
from media import picture
from PIL import Image
from tiny_chats import HERE, chat, decode, image_path, model_path, save  # noqa: F401 - fixtures
from transformers.utils import chat_template_utils

from hpa_merge.calibration import Encoder, TemplateOptions
from hpa_merge.errors import CalibrationError, ConfigError
from hpa_merge.records import Sample, Turn

USER = Turn("user", ("How warm is it\nin Oslo?",))
SYSTEM = Turn("system", ("Be brief.",))
ANSWER = Turn("assistant", (' "Cold", they say. ',))
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Oslo å"}}}
CALLING = Turn("assistant", (), tool_calls=(CALL,))
RESULT = Turn("tool", ('{"degrees": -3}',), tool_call_id="abcdefghi", name="weather")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "its name"}}},
    },
}
THOUGHT = Turn("assistant", ("Cold.",), reasoning="Norway, winter.")
TAGGED = Turn("assistant", ("<think>\nNorway, winter.\n</think>\n\nCold.",))

SAMPLES = {
    "one turn": Sample(HERE, (USER, ANSWER)),
    "system": Sample(HERE, (SYSTEM, USER, ANSWER)),
    "several turns": Sample(HERE, (SYSTEM, USER, ANSWER, USER, ANSWER)),
    "tools": Sample(HERE, (USER, CALLING, RESULT, ANSWER), tools=(TOOL,)),
    "reasoning": Sample(HERE, (USER, THOUGHT)),
    "earlier reasoning": Sample(HERE, (USER, THOUGHT, USER, ANSWER)),
    "tagged reasoning": Sample(HERE, (USER, TAGGED)),
    "earlier tagged reasoning": Sample(HERE, (USER, TAGGED, USER, ANSWER)),
}

UNABLE = {
    ("gemma", "tools"): "refuses this sample (Turns have to alternate)",
    ("gemma", "reasoning"): "leaves out the reasoning of the answer",
    ("llama", "reasoning"): "leaves out the reasoning of the answer",
    ("mistral", "reasoning"): "leaves out the reasoning of the answer",
    ("deepseek", "tools"): "leaves out the tools",
    ("deepseek", "reasoning"): "leaves out the reasoning of the answer",
    ("deepseek", "tagged reasoning"): "leaves out the reasoning of the answer",
    ("phi", "tools"): "leaves out the tool calls of turn 2 (assistant)",
    ("phi", "reasoning"): "leaves out the reasoning of the answer",
}
"""What a family's template cannot write, by the sample; everything else it writes whole."""

NOTED = {
    (family, sample)
    for family in TEMPLATES
    for sample in ("earlier reasoning", "earlier tagged reasoning")
    if sample == "earlier reasoning" or family in ("qwen3", "deepseek")
}
"""Where a template leaves out earlier thoughts, as the families' conventions are."""


def messages(sample: Sample) -> list[dict[str, Any]]:
    """The conversation as people write it for ``apply_chat_template``."""
    found = []
    for turn in sample.turns:
        message: dict[str, Any] = {"role": turn.role, "content": "\n".join(turn.texts)}
        message |= {"reasoning_content": turn.reasoning, "thinking": turn.reasoning} if turn.reasoning else {}
        message |= {"tool_calls": list(turn.tool_calls)} if turn.tool_calls else {}
        message |= {"tool_call_id": turn.tool_call_id, "name": turn.name} if turn.role == "tool" else {}
        found.append(message)
    return found


def tokenizer(family: str) -> Any:
    made = tiny.text_tokenizer(chat=False)
    made.chat_template = TEMPLATES[family]
    return made


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of transformers itself, at the day that we pin."""

    class Fixed(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2024, 7, 26)

    monkeypatch.setattr(chat_template_utils, "datetime", Fixed)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("family", TEMPLATES)
def test_ids_are_those_of_transformers(family: str, name: str) -> None:
    ours, sample = Encoder(tokenizer(family)), SAMPLES[name]
    if (why := UNABLE.get((family, name))) is not None:
        with pytest.raises(CalibrationError) as caught:
            ours.encode(sample, 10_000)
        assert str(caught.value).startswith(HERE)
        assert why in str(caught.value)
        return
    made = ours.prepare(sample, 10_000)
    theirs = tokenizer(family).apply_chat_template(
        messages(sample), tools=list(sample.tools) or None, tokenize=True, return_dict=True
    )
    assert made.inputs["input_ids"][0].tolist() == theirs["input_ids"]
    assert ("thought in earlier turns" in " ".join(made.notes)) == ((family, name) in NOTED)
    prompt = replace(sample, turns=sample.turns[:-1])
    theirs = tokenizer(family).apply_chat_template(
        messages(prompt), tools=list(sample.tools) or None, tokenize=True, add_generation_prompt=True, return_dict=True
    )
    asked = ours.encode_prompts([prompt], reply=True, side="left")
    assert asked["input_ids"][0].tolist() == theirs["input_ids"]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of the processors of PaliGemma and GLM-4V
@pytest.mark.parametrize("name", family_processors.PROCESSORS)
def test_ids_are_those_of_the_processor_with_images_and_without(name: str, image: Path) -> None:
    try:
        processor = family_processors.processor(name)
    except ImportError:
        pytest.skip("this release of transformers wants torchvision for it")
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}
    seen = {"type": "image", "image": Image.open(image)}
    asked = [{"type": "text", "text": "What is it?"}]
    ours = Encoder(processor=processor)
    alone = Encoder(processor.tokenizer, template=processor.chat_template, multimodal=True)
    for parts, content, encoders in (
        ((picture(image), "What is it?"), [seen, *asked], [ours]),
        (("What is it?",), asked, [ours, alone]),
    ):
        if name == "paligemma" and seen not in content:
            continue  # its processor takes no text by itself
        given = [system, {"role": "user", "content": content}, answer]
        theirs = processor.apply_chat_template(given, tokenize=True, return_dict=True, return_tensors="pt")
        sample = Sample(HERE, (SYSTEM, Turn("user", parts), Turn("assistant", ("Red.",))))
        for encoder in encoders:
            assert encoder.encode(sample, 10_000)["input_ids"].tolist() == theirs["input_ids"].tolist()


# Where the template lies

ONE = "{% for m in messages %}1 {{ m.content if m.content is string else m.content[0].text }};{% endfor %}"
TWO = ONE.replace("1 ", "2 ")


def in_processor_config(folder: Path) -> None:
    fields = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(fields | {"chat_template": ONE}))


def in_json(folder: Path) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": ONE}))


def in_jinja(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(ONE)


def in_a_folder(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(TWO)
    (folder / "chat_template.jinja").write_text(ONE)


@pytest.mark.parametrize("place", [in_processor_config, in_json, in_jinja, in_a_folder])
@pytest.mark.parametrize("of_tokenizer", [None, TWO])
def test_a_processors_template_writes_sets_without_images_too(
    place: Callable[[Path], None], of_tokenizer: str | None, model: Path, image: Path
) -> None:
    processor = tiny.llava_processor(chat=False)
    save(processor, model)
    fields = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(fields | {"chat_template": of_tokenizer}))
    place(model)
    encoder = Encoder.from_checkpoint(model, [chat("Hi?")])
    assert decode(encoder.encode(chat("Hi?"), 100)) == "<bos>1 Hi?;1 No.;"
    assert encoder.writer.template in ("the processor's chat template", "the tokenizer's chat template")


def test_named_templates(model: Path) -> None:
    made = tiny.text_tokenizer(chat=False)
    tools = "{{ tools[0].function.name }} {{ tools[0].function.description }} {{ tools[0].function.parameters }} "
    made.chat_template = {"default": ONE, "tool_use": tools + TWO, "rag": "{{ bos_token }}3" + ONE}
    save(made, model)
    plain = chat("Hi?")
    assert decode(Encoder.from_checkpoint(model, [plain]).encode(plain, 100)) == "1 Hi?;1 No.;"
    tooled = replace(plain, tools=(TOOL,))
    assert decode(Encoder.from_checkpoint(model, [plain]).encode(tooled, 1000)).endswith("}} 2 Hi?;2 No.;")
    with_rag = Encoder.from_checkpoint(model, [plain], TemplateOptions(name="rag"))
    assert decode(with_rag.encode(plain, 100)) == "<bos>31 Hi?;1 No.;"
    with pytest.raises(ConfigError) as caught:
        Encoder.from_checkpoint(model, [plain], TemplateOptions(name="rags"))
    assert str(caught.value) == (
        "chat_template is 'rags', which is no file, and the checkpoint has the templates default, rag, tool_use: "
        "give the path of a file, or one of the checkpoint's names."
    )
    made.chat_template = {"rag": ONE, "other": TWO}
    with pytest.raises(CalibrationError, match="it has several chat templates, rag, other: choose one with --chat-te"):
        Encoder(made).encode(plain, 100)


# What the user says of it


def test_a_template_that_is_given_comes_first(image: Path) -> None:
    text = "{% for m in messages %}{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}.{% endfor %}{{ x }}"
    options = TemplateOptions(text=text, arguments={"x": [1, "é"]})
    encoder = Encoder(processor=tiny.llava_processor(), options=options)
    assert decode(encoder.encode(chat(image, "Hi?"), 100)) == f"<bos>{'<image>' * 4}Hi?.No..[1, 'é']"
    assert encoder.writer.template == "the chat template that was given"


def test_arguments_come_to_the_template_and_unread_ones_are_refused() -> None:
    given: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": False})
    encoders = [Encoder(tokenizer("qwen3"), options=TemplateOptions(arguments=each)) for each in given]
    prompt = Sample(HERE, (USER,))
    ids = [each.encode_prompts([prompt], reply=True, side="left") for each in encoders]
    assert decode(ids[1]) == decode(ids[0]) + "<think>\n\n</think>\n\n"
    wrong = Encoder(tokenizer("qwen3"), options=TemplateOptions(arguments={"thinking": False}))
    with pytest.raises(ConfigError) as caught:
        wrong.encode(chat("Hi?"), 100)
    assert str(caught.value).startswith(
        "template_arg gives thinking, and the checkpoint's chat template does not read it: it reads enable_thinking"
    )


@pytest.mark.parametrize(("family", "shown"), [("llama", "Date: 01 Mar 2031"), ("gpt-oss", "Today: 2031-03-01")])
def test_the_date_is_pinned(family: str, shown: str) -> None:
    encoder = Encoder(tokenizer(family), options=TemplateOptions(date="2031-03-01"))
    assert shown in decode(encoder.encode(chat("Hi?"), 1000))
    clock = chat_template_utils.datetime
    assert clock.now() == datetime(2024, 7, 26)  # as this test's fixture has it: the pin is taken off again


# What a template leaves out

LOSSES = {
    "a system turn": (
        "{% for m in messages if m.role != 'system' %}{{ m.content }};{% endfor %}",
        SAMPLES["system"],
        "out the text of turn 1 (system)",
    ),
    "a late system turn": (
        "{{ messages[0].content }}{% for m in messages[1:] if m.role != 'system' %}{{ m.content }};{% endfor %}",
        Sample(HERE, (USER, replace(SYSTEM, parts=("user",)), ANSWER)),
        "out the text of turn 2 (system)",
    ),
    "all but the last question": (
        "{{ (messages | selectattr('role', 'equalto', 'user') | list)[-1].content }}{{ messages[-1].content }}",
        SAMPLES["several turns"],
        "out the text of turn 1 (system)",
    ),
    "a tool's result": (
        "{{ tools }}{% for m in messages if m.role != 'tool' %}{{ m.content }}{{ m.tool_calls }};{% endfor %}",
        SAMPLES["tools"],
        "out the text of turn 3 (tool)",
    ),
    "what a call is given": (
        "{{ tools }}{% for m in messages %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %};{% endfor %}",
        SAMPLES["tools"],
        "out the tool calls of turn 2 (assistant)",
    ),
    "what a tool is": (
        "{{ tools[0].function.name }}{% for m in messages %}{{ m.content }}{{ m.tool_calls }};{% endfor %}",
        SAMPLES["tools"],
        "out the tools",
    ),
    "what comes with a call": (
        "{% for m in messages %}{{ m.tool_calls or m.content }};{% endfor %}",
        Sample(HERE, (USER, replace(CALLING, parts=("I look it up.",)), RESULT, ANSWER)),
        "out the text of turn 2 (assistant)",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_template_leaves_out_is_refused(name: str) -> None:
    template, sample, what = LOSSES[name]
    made = tiny.text_tokenizer(chat=False)
    made.chat_template = template
    with pytest.raises(CalibrationError) as caught:
        Encoder(made).encode(sample, 10_000)
    assert str(caught.value).startswith(f"{HERE}: the checkpoint's chat template leaves {what}: give a template that ")
    assert "--chat-template" in str(caught.value)


def test_a_template_that_writes_one_of_two_images(image: Path) -> None:
    processor = tiny.llava_processor()
    processor.chat_template = (
        "{% for m in messages %}{% if m.content | selectattr('type', 'equalto', 'image') | list %}<image>{% endif %}"
        "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %};{% endfor %}"
    )
    Encoder(processor=processor).encode(chat(image, "Hi?"), 100)
    with pytest.raises(CalibrationError, match=r"chat template leaves its images out: give the checkpoint a template"):
        Encoder(processor=processor).encode(chat(image, image, "Hi?"), 100)


def test_a_template_that_cannot_do_without_its_image(image: Path) -> None:
    processor = tiny.llava_processor()
    processor.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' and m.content[0].type != 'image' %}"
        "{{ raise_exception('no image') }}{% endif %}{% for p in m.content %}"
        "{{ '<image>' if p.type == 'image' else p.text }}{% endfor %};{% endfor %}"
    )
    made = Encoder(processor=processor).encode(chat(image, "Hi?"), 100)
    assert decode(made) == f"<bos>{'<image>' * 4}Hi?;No.;"


@pytest.mark.parametrize(
    ("template", "sample", "note"),
    [
        (ONE, Sample(HERE, (replace(USER, name="Ann"), ANSWER)), "does not write the names of speakers"),
        (ONE.replace("m.content if", "m.content[:9] if"), SAMPLES["one turn"], "in other words or signs than the"),
        (ONE.replace("m.content if", "m.content | replace('warm', 'hot') if"), SAMPLES["one turn"], "in other words"),
    ],
)
def test_what_a_template_changes_is_noted(template: str, sample: Sample, note: str) -> None:
    made = tiny.text_tokenizer(chat=False)
    made.chat_template = template
    assert note in " ".join(Encoder(made).prepare(sample, 1000).notes)


@pytest.mark.parametrize("how", ["| upper", "| tojson", "| trim", "| replace('\n', ' ')"])
def test_another_way_of_writing_a_text_is_no_change(how: str) -> None:
    made = tiny.text_tokenizer(chat=False)
    made.chat_template = ONE.replace("m.content if", f"m.content {how} if")
    assert Encoder(made).prepare(SAMPLES["one turn"], 1000).notes == ()


@pytest.mark.parametrize(("name", "what"), [("tools", "tools"), ("reasoning", "reasoning")])
def test_without_a_template_nothing_is_left_out_either(name: str, what: str) -> None:
    with pytest.raises(
        CalibrationError, match=rf"^s\.jsonl:7 has {what}, and the checkpoint has no chat template that"
    ):
        Encoder(tiny.text_tokenizer(chat=False)).encode(SAMPLES[name], 1000)


def test_roles_may_take_content_in_different_ways(image: Path) -> None:
    """As Pixtral's: the user's is an array of parts, the others' are strings."""
    processor = tiny.llava_processor()
    processor.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}{% for p in m.content %}{% if p.type == 'image' %}<image>"
        "{% else %}{{ p.text }}{% endif %}{% endfor %}{% else %}{{ '[' + m.content + ']' }}{% endif %}{% endfor %}"
    )
    sample = Sample(HERE, (SYSTEM, *chat(image, "Hi?").turns))
    assert decode(Encoder(processor=processor).encode(sample, 100)) == f"<bos>[Be brief.]{'<image>' * 4}Hi?[No.]"
