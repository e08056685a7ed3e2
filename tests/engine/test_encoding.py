"""A calibration set becomes inputs: what is refused, dropped and counted, by which template, as the report says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from cases import TinyCase
from tiny_chats import HERE

from hpa_merge import HPAConfig
from hpa_merge.calibration import SampleSet, read_samples
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine.encoding import Encoding, encoding, template_options
from hpa_merge.engine.meta_models import meta_model
from hpa_merge.engine.showing import show_samples
from hpa_merge.errors import CalibrationError, ConfigError
from hpa_merge.records import Sample, Turn
from hpa_merge.report.records import CalibrationRecord

Tiny = Callable[..., TinyCase]
USER = Turn("user", ("How warm is it in Oslo in the winter?",))


def answered(answer: str, source: str = HERE) -> Sample:
    return Sample(source, (USER, Turn("assistant", (answer,))))


def encoded(case: TinyCase, purpose: str, *samples: Sample, **options: object) -> Encoding:
    config = HPAConfig(**options)  # type: ignore[arg-type]
    given = SampleSet(samples, available=9, passed_over=("id",), dropped={"no answer": 1})
    with Checkpoint.open(case.new, "NEW") as checkpoint, encoding(checkpoint, given, purpose, config, 2) as begun:
        begun.inputs(meta_model(checkpoint, torch.device("cpu")))
    return begun


def test_what_does_not_fit_is_dropped_of_a_task_and_refused_of_safety(tiny: Tiny) -> None:
    long = Sample("s.jsonl:9", (USER, USER, *answered("No.").turns))
    samples = [answered("Cold."), answered("x" * 200, "s.jsonl:8"), long]
    begun = encoded(tiny("llama"), "task", *samples, max_length=120)
    assert begun.samples == (samples[0], samples[2])
    record = begun.tally.record("s.jsonl")
    tokens = begun.tally.tokens
    assert record == CalibrationRecord(
        "s.jsonl",
        samples=2,
        tokens=tokens,
        images=0,
        turns=6,
        answers=2,
        truncated=1,
        available=9,
        dropped={"does not fit into 120 tokens": 1, "no answer": 1},
        passed_over=("id",),
        template="the tokenizer's chat template",
    )
    assert dict(begun.tally.shapes) == {"user, assistant": 1, "user, user, user, assistant": 1}
    assert [(shown.source, shown.cut > 0) for shown in begun.shown] == [(HERE, False), ("s.jsonl:9", True)]
    assert sum(shown.tokens for shown in begun.shown) == tokens
    assert [piece.text for piece in begun.shown[1].pieces if piece.kind == "answer"] == ["No."]
    with pytest.raises(
        CalibrationError, match=r"^s\.jsonl:8: its answer does not fit into 120 tokens, the sample has "
    ):
        encoded(tiny("llama"), "safety", *samples, max_length=120)


@pytest.mark.parametrize("sample", [Sample(HERE, text="x" * 200), Sample(HERE, input_ids=(20,) * 200)])
def test_a_text_that_is_cut_may_have_lost_its_refusal(sample: Sample, tiny: Tiny) -> None:
    begun = encoded(tiny("llama"), "task", sample, max_length=90)
    assert (begun.tally.tokens, begun.tally.record("s").truncated, begun.tally.record("s").answers) == (90, 1, 0)
    with pytest.raises(CalibrationError) as caught:
        encoded(tiny("llama"), "safety", sample, max_length=90)
    over = 111 if sample.text else 110
    assert str(caught.value) == (
        f"{HERE}: it is {over} tokens longer than 90, and its end, where a refusal stands, would be cut: "
        "raise --max-length, or shorten the texts."
    )


def test_a_task_set_of_which_nothing_fits(tiny: Tiny) -> None:
    with pytest.raises(CalibrationError) as caught:
        encoded(tiny("llama"), "task", answered("x" * 200), answered("y" * 200), max_length=100)
    assert str(caught.value) == (
        f"{HERE}: none of the 2 task samples fits into 100 tokens: raise --max-length, or shorten the texts."
    )


def test_what_a_template_leaves_out_on_purpose_is_noted_once(tiny: Tiny, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(
        "{% for m in messages %}{% if loop.last %}{{ m.reasoning_content }}{% endif %}"
        "{{ m.content if m.content is string else m.content[0].text }};{% endfor %}"
    )
    thought = Turn("assistant", ("Cold.",), reasoning="Norway.")
    samples = [Sample(f"s.jsonl:{n}", (USER, thought, USER, thought)) for n in (4, 5)]
    begun = encoded(tiny("llama"), "task", *samples, answered("No."), chat_template=str(template))
    assert begun.tally.notes == (
        "2 of the task samples, the first of which is s.jsonl:4: the chat template leaves out what the assistant "
        "thought in earlier turns, as the model's own convention is.",
    )
    assert begun.tally.template == "the chat template that was given"


def test_samples_are_shown_as_a_merge_would_use_them(tiny: Tiny) -> None:
    case = tiny("llava")
    given = read_samples(case.safety, 2, 0)
    found = show_samples(case.safety, given, case.old, "safety", HPAConfig().calibration, first=1, tower=None)
    assert found.record.samples == 2
    assert found.record.available == 4
    (shown,) = found.shown.samples
    text = "".join(piece.text for piece in shown.pieces if piece.kind in ("text", "answer"))
    assert shown.source == given.samples[0].source
    assert all(part in text for turn in given.samples[0].turns for part in turn.texts)


# The chat template that the user gives


def test_a_template_is_a_file_or_a_name(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    file.write_text("{{ messages }}")
    given = template_options(str(file), ("a=1", "b=x=y", "c=False", "d=[1]", 'e="1"', "f=nan"), "2031-03-01")
    assert (given.text, given.name, given.date) == ("{{ messages }}", "", "2031-03-01")
    assert given.arguments == {"a": 1, "b": "x=y", "c": False, "d": [1], "e": "1", "f": "nan"}
    assert template_options("tool_use", (), "2031-03-01").name == "tool_use"


@pytest.mark.parametrize(
    ("template", "arguments", "date", "why"),
    [
        (b"", (), "2024-07-26", "is empty"),
        (b"\xff", (), "2024-07-26", "is not a template (it is not UTF-8)"),
        (b"x" * (2**20 + 1), (), "2024-07-26", "is not a template (it is longer than 1048576 bytes)"),
        (None, (), "2024-07-26", "cannot be read (No such file or directory)"),
        (b"x", ("a",), "2024-07-26", "template_arg is 'a': it has to be KEY=VALUE"),
        (b"x", ("a b=1",), "2024-07-26", "template_arg is 'a b=1': it has to be KEY=VALUE"),
        (b"x", ("tools=1",), "2024-07-26", "template_arg gives tools, which transformers itself gives a template"),
        (b"x", ("a=1", "a=2"), "2024-07-26", "template_arg gives a twice"),
        (b"x", (), "2024-7-26", "template_date is '2024-7-26': it has to be a day as 2024-07-26"),
        (b"x", (), "2024-02-30", "template_date is '2024-02-30'"),
    ],
)
def test_a_template_that_cannot_be(
    template: bytes | None, arguments: tuple[str, ...], date: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "t.jinja"
    if template is not None:
        file.write_bytes(template)
    with pytest.raises(ConfigError) as caught:
        template_options(str(file), arguments, date)
    assert why in str(caught.value)
    assert str(caught.value).endswith(".")


def test_the_options_may_stand_in_yaml() -> None:
    text = "template-arg: {enable_thinking: false, tone: 'très poli'}\ntemplate-date: 2031-03-01\nchat-template: rag\n"
    config = HPAConfig.from_mapping(yaml.safe_load(text))
    assert config.template_arg == ("enable_thinking=false", 'tone="très poli"')
    assert (config.template_date, config.chat_template) == ("2031-03-01", "rag")
    assert HPAConfig.from_mapping({"template_arg": "a=1"}).template_arg == ("a=1",)
    assert HPAConfig(template_arg=["a=1"]).template_arg == ("a=1",)  # type: ignore[arg-type]
