"""A sample that is too long: the prompt gives way, the answer and the media stay, and special tokens stand once."""

from pathlib import Path
from typing import Any

import pytest
import tiny_processors as tiny
from media import picture
from tiny_chats import HERE, decode, image_path  # noqa: F401 - fixture
from tokenizers import processors

from hpa_merge.calibration import Encoder
from hpa_merge.calibration.truncation import shortened
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Sample, Turn

LONG = "".join(f"{n:04d} " for n in range(400))
NO = Turn("assistant", ("I cannot help.",))
SYSTEM = Turn("system", ("Be brief and kind, and say nothing twice.",))


def template(*turns: str) -> str:
    return "<bos>" + "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)


@pytest.mark.parametrize("length", [80, 200, 1999, 2000])
def test_the_prompt_loses_its_middle_and_the_answer_nothing(length: int) -> None:
    sample = Sample(HERE, (Turn("user", (LONG,)), NO))
    encoder = Encoder(tiny.text_tokenizer(chat=True))
    made = encoder.prepare(sample, length)
    assert made.inputs["input_ids"].shape == made.inputs["attention_mask"].shape == (1, length)
    whole = encoder.prepare(sample, 10_000)
    assert made.cut == whole.inputs["input_ids"].shape[1] - length
    kept = len(LONG) - made.cut
    asked = LONG[: kept - kept // 2] + LONG[len(LONG) - kept // 2 :]
    assert decode(made.inputs) == template(f"user\n{asked}", "assistant\nI cannot help.")


def test_the_longest_texts_give_way_first_and_the_system_never() -> None:
    turns = (SYSTEM, Turn("user", (LONG,)), Turn("assistant", ("Go on, please.",)), Turn("user", (LONG[:900],)), NO)
    made = Encoder(tiny.text_tokenizer(chat=True)).prepare(Sample(HERE, turns), 500)
    text = decode(made.inputs)
    assert made.inputs["input_ids"].shape[1] in (499, 500)  # two texts share what there is
    assert SYSTEM.texts[0] in text
    assert "Go on, please." in text
    assert text.endswith(template("assistant\nI cannot help.")[5:])
    first, second = (turn.texts[0] for turn in made.sample.turns if turn.role == "user")
    assert len(first) == len(second)
    assert (first[:4], first[-5:], second[:4]) == ("0000", "0399 ", "0000")


@pytest.mark.parametrize(
    "turns",
    [(Turn("user", ("Hi?",)), Turn("assistant", (LONG,))), (Turn("system", (LONG,)), Turn("user", ("x" * 90,)), NO)],
)
def test_what_does_not_fit_is_said(turns: tuple[Turn, ...]) -> None:
    encoder = Encoder(tiny.text_tokenizer(chat=True))
    made = encoder.prepare(Sample(HERE, turns), 100)
    whole = encoder.prepare(Sample(HERE, turns), 10_000).inputs["input_ids"].shape[1]
    assert made.inputs == {}
    assert made.unfit == f"its answer does not fit into 100 tokens, the sample has {whole}"
    with pytest.raises(CalibrationError) as caught:
        encoder.encode(Sample(HERE, turns), 100)
    assert str(caught.value) == f"{HERE}: {made.unfit}: raise --max-length, or shorten the texts."


@pytest.mark.parametrize("build", [tiny.llava_processor, tiny.qwen2_5_vl_processor, tiny.gemma3_processor])
def test_images_stay_whole_while_the_prompt_is_cut(build: Any, image: Path) -> None:
    sample = Sample(HERE, (Turn("user", (picture(image), LONG, picture(image))), NO))
    encoder = Encoder(processor=build())
    whole, made = encoder.prepare(sample, 10_000), encoder.prepare(sample, 150)
    ids = encoder.media_ids
    assert made.inputs["input_ids"].shape[1] == 150

    def images(inputs: Any) -> list[int]:
        return [number for number in inputs["input_ids"][0].tolist() if number in ids]

    assert images(made.inputs) == images(whole.inputs) != []
    assert made.inputs["pixel_values"].shape == whole.inputs["pixel_values"].shape
    assert decode(made.inputs).endswith("I cannot help.<|im_end|>\n")


def test_a_text_and_ids_lose_their_end() -> None:
    encoder = Encoder(tiny.text_tokenizer(chat=True))
    made = encoder.prepare(Sample(HERE, text="abcdefgh"), 4)
    assert (decode(made.inputs), made.cut) == ("<bos>abc", 5)
    made = encoder.prepare(Sample(HERE, input_ids=(5, 6, 7)), 2)
    assert (made.inputs["input_ids"].tolist(), made.cut) == ([[5, 6]], 1)


def test_very_long_prompts_are_tokenised_in_small_pieces() -> None:
    """A text is measured from below: no attempt has more than twice the characters that are kept in the end."""
    tried: list[int] = []

    def fits(sample: Sample) -> bool:
        tried.append(len(sample.turns[0].texts[0]))
        return tried[-1] <= 1000

    found = shortened(Sample(HERE, (Turn("user", ("x" * 2_000_000,)), NO)), fits)
    assert found is not None
    assert len(found.turns[0].texts[0]) == 1000
    assert max(tried) <= 2048
    assert len(tried) < 25


# Special tokens once


def both_ends(bos: str, eos: str) -> Any:
    """A tokenizer that puts these around any text, whatever else it has."""
    made = tiny.text_tokenizer(chat=False)
    ids = {"<bos>": tiny.BOS_ID, "<eos>": tiny.EOS_ID, "<unk>": tiny.UNK_ID}
    tokens = [(token, ids[token]) for token in f"{bos} {eos}".split()]
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}".strip(), special_tokens=tokens
    )
    return made


@pytest.mark.parametrize("eos", ["", "<eos>"])
@pytest.mark.parametrize("bos", ["", "<bos>", "<unk> <bos>"])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_text_that_has_special_tokens_gets_no_second_ones(bos: str, eos: str, begun: bool, ended: bool) -> None:
    first = bos.replace(" ", "")
    text = f"{first if begun else ''}[INST] Hi? [/INST] No.{'<eos>' if ended else ''}"
    inputs = Encoder(both_ends(bos, eos)).encode(Sample(HERE, text=text), 100)
    assert decode(inputs) == f"{first}[INST] Hi? [/INST] No.{'<eos>' if ended or eos else ''}"
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape


def test_other_special_tokens_in_a_text_stay() -> None:
    encoder = Encoder(tiny.text_tokenizer(chat=True))
    for text in ("<|im_start|>user\nHi<|im_end|>", "a<bos>b", "<bos><bos>a"):
        assert (
            decode(encoder.encode(Sample(HERE, text=text), 100))
            == f"{'' if text[0] + text[1] == '<b' else '<bos>'}{text}"
        )
