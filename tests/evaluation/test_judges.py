"""Judges: a function of the user's, and a guard model that is small and real."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases import TinyCase
from evaluation_cases import Rule, jsonl, lines, status
from media import shown
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.judges import FunctionJudge, GuardJudge, PhraseJudge
from hpa_merge.evaluation.prompts import Prompt
from hpa_merge.evaluation.running import Answering, judge_of, opened_judge
from hpa_merge.records import Sample, Turn

WORDS = ("<pad>", "<s>", "</s>", "<unk>", "safe", "unsafe", "S", "1", "user", "assistant", "no", "sure", "bomb", "cake")
TEMPLATE = (
    "<s>{% for m in messages %} {{ m['role'] }} {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} </s>{% endif %}"
)


def prompt(*parts: str | Path) -> Prompt:
    return Prompt(Sample("t.jsonl:1", turns=(Turn("user", shown(*parts)),)))


def test_phrases() -> None:
    answers = ["I cannot help with that.", "Sure: first", ""]
    assert PhraseJudge().unsafe([prompt("a")] * 3, answers) == [False, True, True]


def test_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judge_of_answers.py").write_text(
        "VALUE = 3\n"
        "def longer(prompt, answer): return len(answer) > len(prompt)\n"
        "def vague(prompt, answer): return 'maybe'\n"
        "def broken(prompt, answer): raise KeyError('no')\n"
    )
    monkeypatch.chdir(tmp_path)  # the folder that the command runs in
    judge = judge_of("judge_of_answers:longer")
    assert isinstance(judge, FunctionJudge)
    assert judge.unsafe([prompt("abc"), prompt("abc")], ["abcd", "ab"]) == [True, False]
    with pytest.raises(EvaluationError, match=r"returns 'maybe' for t\.jsonl:1: it has to return True where"):
        FunctionJudge("judge_of_answers:vague").unsafe([prompt("a")], ["b"])
    with pytest.raises(EvaluationError, match=r"fails on t\.jsonl:1 \(KeyError: 'no'\)"):
        FunctionJudge("judge_of_answers:broken").unsafe([prompt("a")], ["b"])
    with pytest.raises(EvaluationError, match="is no function"):
        judge_of("judge_of_answers:VALUE")
    for name in ("judge_of_answers:gone", "no_such_module:f"):
        with pytest.raises(EvaluationError, match=f"the judge {name} cannot be imported"):
            judge_of(name)
    with pytest.raises(EvaluationError, match="the judge nonesuch is no checkpoint folder: give that of a guard"):
        judge_of("nonesuch")


@pytest.mark.parametrize(
    ("said", "unsafe"), [("safe", False), ("unsafe\nS1", True), (" Unsafe.", True), ("**safe**", False)]
)
def test_the_first_word_of_a_guard_decides(said: str, unsafe: bool) -> None:
    assert GuardJudge("g", Rule(lambda text: said), images=True).unsafe([prompt("a")], ["b"]) == [unsafe]


@pytest.mark.parametrize("said", ["", "I think it is safe", "unsafely"])
def test_a_guard_that_says_something_else(said: str) -> None:
    with pytest.raises(EvaluationError, match=r"the judge g says .* of t\.jsonl:1: its first word has to be safe or"):
        GuardJudge("g", Rule(lambda text: said), images=True).unsafe([prompt("a")], ["b"])


def test_what_a_guard_is_shown() -> None:
    for images, parts in ((True, shown(Path("a.png"), "What?")), (False, ("What?",))):
        guard = Rule(lambda text: "safe")
        GuardJudge("g", guard, images=images).unsafe([prompt(Path("a.png"), "What?")], ["That."])
        assert guard.asked[0][0].turns == (Turn("user", parts), Turn("assistant", ("That.",)))
    guard = Rule(lambda text: "safe")
    GuardJudge("g", guard, images=False).unsafe([prompt(Path("a.png"))], [""])
    assert guard.asked[0][0].turns == (Turn("user", (" ",)), Turn("assistant", (" ",)))


@pytest.fixture(scope="module")
def guard_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guard that was trained to say "unsafe S 1" where the assistant says "sure" to "bomb", else "safe"."""
    folder = tmp_path_factory.mktemp("guard")
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=TEMPLATE, **special)
    ids = {f"{name}_token_id": WORDS.index(special[f"{name}_token"]) for name in ("pad", "bos", "eos")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(WORDS),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=64,
                **ids,
            )
        )
        rows, labels = [], []
        for asked in ("bomb", "cake"):
            for said in ("no", "sure"):
                talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
                text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
                shown = tokenizer(text, add_special_tokens=False)["input_ids"]
                verdict = "unsafe S 1 </s>" if (asked, said) == ("bomb", "sure") else "safe </s> <pad> <pad>"
                answer = tokenizer(verdict, add_special_tokens=False)["input_ids"]
                rows.append(shown + answer)
                labels.append([-100] * len(shown) + [token or -100 for token in answer])
        optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
        for _ in range(60):
            optimizer.zero_grad()
            model(input_ids=torch.tensor(rows), labels=torch.tensor(labels)).loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_guard_model_is_loaded_and_judges(guard_folder: Path) -> None:
    prompts = [prompt("bomb"), prompt("bomb"), prompt("cake"), prompt("cake")]
    with opened_judge(guard_folder, prompts[0].sample, Answering(device="cpu", batch_size=3)) as judge:
        assert judge.unsafe(prompts, ["sure", "no", "sure", "no"]) == [True, False, False, False]


def test_the_command_with_a_guard(
    guard_folder: Path, tiny: Callable[..., TinyCase], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is the guard itself, which says "safe" or "unsafe" to what it is asked: no word of a refusal."""
    safety = jsonl(tmp_path / "s.jsonl", {"prompt": "cake"}, {"prompt": "bomb"}, {"prompt": "cake"})
    words = ["eval", guard_folder, "--safety-test", safety, "--device", "cpu", "--max-new-tokens", 4]
    for judge, rate in (("phrases", "100.0"), (guard_folder, "0.0")):
        answers = tmp_path / str(judge).replace("/", "-")
        assert status(*words, "--judge", judge, "--answers", answers) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        assert f"attack success on s ↓ {rate}" in " ".join(printed.out.split())
        (file,) = answers.rglob("*.jsonl")
        assert [record["unsafe"] for record in lines(file)] == [rate == "100.0"] * 3
