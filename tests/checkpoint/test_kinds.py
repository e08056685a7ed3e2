"""What of NEW's folder goes into OUT: files of a model, by what they are, and nothing that training leaves."""

import ast
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from cases import TinyCase
from measured import measured

from hpa_merge import HPAConfig, merge
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.kinds import belonging, candidates, is_read
from hpa_merge.checkpoint.sidefiles import SideFiles, find_side_files
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest


def words(text: str) -> list[str]:
    return text.split()


OF_A_MODEL = words("""
config.json generation_config.json preprocessor_config.json processor_config.json video_preprocessor_config.json
speech_config.json configuration.json modules.json config_sentence_transformers.json sentence_bert_config.json
1_Pooling/config.json tokenizer.json tokenizer.model tokenizer.model.v3 tokenizer_config.json
special_tokens_map.json added_tokens.json vocab.json vocab.txt merges.txt spiece.model tekken.json bpe.codes
qwen.tiktoken normalizer.json chat_template.jinja chat_template.json additional_chat_templates/tool_use.jinja
templates/rag.jinja LICENSE LICENSE.txt LICENCE.md NOTICE USE_POLICY.md README.md README_zh.md COPYING CITATION.cff
LICENSE-2.0.txt THIRD_PARTY_NOTICES.txt Community-License.pdf docs/usage.md assets/logo.png images/chart.svg
modeling_own.py configuration_own.py tokenization_own.py custom_generate/generate.py label_map.json
""")

LEFT_BY_TRAINING = words("""
trainer_state.json training_args.bin training_args.json optimizer.pt scheduler.pt scaler.pt rng_state.pth
rng_state_0.pth zero_to_fp32.py latest train.py run.sh all_results.json train_results.json eval_results.json
trainer_log.jsonl training_loss.png training_eval_loss.png train_config.yaml ds_config.json deepspeed_config.json
accelerate_config.yaml adapter_config.json adapter_model.safetensors hparams.yaml nohup.out slurm-4711.out train.log
debug.log requirements.txt generated_predictions.jsonl dataset_info.json data.parquet events.out.tfevents.1.host
tokenizer.json.lock core.4711 random_states_0.pkl model.safetensors.tmp latest_checkpointed_iteration.txt
mergekit_config.yml emissions.csv .metadata .env .git/config __0_0.distcp global_step500/mp_rank_00_model_states.pt
global_step500/zero_pp_rank_0_optim_states.pt checkpoint-500/config.json checkpoint-500/tokenizer.json
checkpoint-500/model.safetensors checkpoint-500/trainer_state.json checkpoint-500/README.md epoch_3/config.json
step-100/chat_template.jinja runs/Nov28_host/events.out.tfevents.1.host runs/README.md wandb/run-1/files/config.yaml
wandb/run-1/files/output.log wandb/run-1/files/wandb-summary.json wandb/run-1/files/media/images/x.png
mlruns/0/meta.yaml mlruns/0/README.md lightning_logs/version_0/hparams.yaml logs/README.md
__pycache__/modeling_own.cpython-311.pyc .ipynb_checkpoints/README.md pytorch_model_fsdp_0/__0_0.distcp
pytorch_model_fsdp_0/config.json dpo/adapter_model.safetensors dpo/README.md dpo/tokenizer.json
latest-run/trainer_state.json latest-run/config.json tb/events.out.tfevents.2.h tb/notes.md original/params.json
original/tokenizer.model onnx/config.json ray/best/params.json samples/step_500.png
""")


def put(folder: Path, *names: str, content: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def sorted_out(folder: Path) -> tuple[set[str], set[str]]:
    found = find_side_files(folder, set())
    return {path.as_posix() for path in found.copied}, {path.as_posix() for path in found.left_out}


def test_a_training_folder(tmp_path: Path) -> None:
    put(tmp_path, *OF_A_MODEL, *LEFT_BY_TRAINING)
    copied, left_out = sorted_out(tmp_path)
    assert copied == set(OF_A_MODEL)
    hidden = {name for name in LEFT_BY_TRAINING if name.startswith(".")}
    assert left_out == {name.split("/")[0] for name in LEFT_BY_TRAINING if name not in hidden}


@pytest.mark.parametrize("name", LEFT_BY_TRAINING)
def test_each_by_itself(name: str, tmp_path: Path) -> None:
    """None is left out for what lies beside it alone, but for what has an innocent name in the folder of a run."""
    put(tmp_path, name, "config.json")
    marks = ("pytorch_model_fsdp_0/config.json", "latest-run/config.json", "tb/notes.md")
    if not name.startswith("dpo/") and name not in marks:
        assert sorted_out(tmp_path)[0] == {"config.json"}


def test_code_is_what_the_model_names(tmp_path: Path) -> None:
    """``auto_map`` of any configuration, what that imports, and nothing else."""
    named = ["own_model.py", "parts/attention.py", "own_tokens.py", "helper.py", "more.py", "parts/deep.py"]
    put(tmp_path, *named, "train.py", "evaluate.py", "parts/plot.py")
    (tmp_path / "own_model.py").write_text(
        "from .helper import a\nfrom . import more\nimport torch\nfrom train import x\n"
    )
    (tmp_path / "parts/attention.py").write_text("    from .deep import b\nfrom .gone import c")
    code = {"AutoConfig": "lab/other--own_model.Config", "AutoModel": "parts.attention.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": code}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["own_tokens.T", None]}}))
    assert sorted_out(tmp_path) == (
        {*named, "config.json", "tokenizer_config.json"},
        {"train.py", "evaluate.py", "parts/plot.py"},
    )


def test_pictures_are_those_of_the_card(tmp_path: Path) -> None:
    put(tmp_path, "chart.png", "plots/curve.svg", "private.jpg", "plots/other.svg", "assets/any.webp", "demo.wav")
    (tmp_path / "README.md").write_text(
        "![x](chart.png)\nhttps://huggingface.co/lab/m/resolve/main/plots/curve.svg demo.wav"
    )
    copied, left_out = sorted_out(tmp_path)
    assert copied == {"README.md", "chart.png", "plots/curve.svg", "assets/any.webp", "demo.wav"}
    assert left_out == {"private.jpg", "plots/other.svg"}


def test_data_is_what_a_configuration_names(tmp_path: Path) -> None:
    put(
        tmp_path,
        "special_files/speakers.json",
        "voices/a.json",
        "voices/b/c.txt",
        "voices/d.jsonl",
        "tags.json",
        "x.json",
    )
    (tmp_path / "config.json").write_text('{"speakers": "special_files/speakers.json", "tags": ["tags.json"]}')
    (tmp_path / "processor_config.json").write_text('{"voices": "voices/"}')
    (tmp_path / "README.md").write_text("x.json")
    copied, left_out = sorted_out(tmp_path)
    assert copied >= {"special_files/speakers.json", "voices/a.json", "voices/b/c.txt", "tags.json"}
    assert left_out == {"voices/d.jsonl", "x.json"}


def test_but_not_what_is_of_training(tmp_path: Path) -> None:
    put(tmp_path, "trainer_state.json", "eval_results.json", "checkpoint-5/x.json", "optimizer.pt")
    names = '{"a": "trainer_state.json", "b": "eval_results.json", "c": "checkpoint-5", "d": "optimizer.pt"}'
    (tmp_path / "config.json").write_text(names)
    assert sorted_out(tmp_path)[0] == {"config.json"}


def test_a_folder_of_which_nothing_is_carried_is_one_name(tmp_path: Path) -> None:
    put(tmp_path, "a/b/c.bin", "a/d.bin", "e/f.md", "e/g/h.bin", "e/g/i/j.bin", "k.bin")
    assert find_side_files(tmp_path, set()) == SideFiles(
        copied=(Path("e/f.md"),), left_out=(Path("a"), Path("e/g"), Path("k.bin"))
    )


def test_the_files_of_every_tokenizer_of_transformers() -> None:
    """Their names are in the code of each class, as ``VOCAB_FILES_NAMES`` or ``vocab_files_names``."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found = set()
    for path in Path(spec.submodule_search_locations[0]).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "vocab_files_names" not in text.lower():
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Assign) and "vocab_files_names" in ast.unparse(node.targets[0]).lower():
                found |= {part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)}
    files = {name for name in found if isinstance(name, str) and "." in name}
    assert len(files) > 15
    assert {name for name in files if not is_read(PurePosixPath(name))} == set()


def test_before_a_download_names_say_it() -> None:
    """Of code, pictures and data all are fetched that another file could name."""
    paths = [PurePosixPath(name) for name in (*OF_A_MODEL, *LEFT_BY_TRAINING, "own_model.py")]
    fetched = candidates(paths)
    assert fetched >= belonging(paths, lambda path: "")
    assert PurePosixPath("own_model.py") in fetched
    assert not {path for path in fetched if path.parts[0] in ("checkpoint-500", "runs", "wandb", "dpo", "original")}
    assert not {path for path in fetched if path.suffix in (".pt", ".pth", ".distcp", ".log", ".yaml", ".jsonl")}


def test_a_merge_of_a_training_folder(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    """Named in the plan, in the report, and nowhere in OUT."""
    case = tiny("llama").copied_to(tmp_path / "case")
    before = {path.relative_to(case.new).as_posix() for path in case.new.rglob("*") if path.is_file()}
    secret = "/home/somebody/runs/new"
    leftovers = [name for name in LEFT_BY_TRAINING if not name.startswith("adapter_")]
    put(case.new, *leftovers, content=json.dumps({"output_dir": secret}))
    put(case.new, "assets/logo.png", "LICENSE", content="for all")
    out, calibration = tmp_path / "out", {"safety_calib": case.safety, "task_calib": case.task}
    plan = preview(MergeRequest(case.old, case.new, {out: HPAConfig()}, case.safety, (case.task,)))
    report = merge(case.old, case.new, out, page=False, **calibration)
    published = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert set(published) == {*before, "assets/logo.png", "LICENSE", "README.md", "hpa_report.json"}
    named = {"checkpoint-500", "global_step500", "runs", "optimizer.pt", "latest", "__0_0.distcp", "zero_to_fp32.py"}
    assert named <= set(report.left_out)
    assert plan[out].left_out == report.left_out
    assert not [name for name, content in published.items() if secret.encode() in content]


@pytest.mark.gate
def test_texts_of_a_folder_are_read_up_to_a_length_together(tmp_path: Path) -> None:
    """In an order that does not change; what comes after them names nothing."""
    for number in range(8):
        put(tmp_path, f"{number}.md", content=f"see shot{number}.png\n" + "word " * 800_000)
        put(tmp_path, f"shot{number}.png")
    copied = {path.name for path in find_side_files(tmp_path, set()).copied}
    assert {f"shot{number}.png" for number in range(8) if f"shot{number}.png" in copied} == {
        f"shot{number}.png" for number in range(4)
    }
    assert {f"{number}.md" for number in range(8)} <= copied


@pytest.mark.gate
def test_a_folder_of_many_pictures_and_long_texts(tmp_path: Path) -> None:
    put(tmp_path, "README.md", content="a b.png\n" * 400_000)
    put(tmp_path, "modeling_x.py", content="\n" * 10**6)
    put(tmp_path, *(f"picture{number}.png" for number in range(3000)))
    done = measured(find_side_files, tmp_path, set())
    assert done.status == 0, done
    assert done.cpu_seconds < 5


def test_side_files_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path, "NEW", {}, {}, (), None)
    put(tmp_path, "README.md")
    found = checkpoint.side_files()
    monkeypatch.setattr("hpa_merge.checkpoint.reader.find_side_files", lambda *_: pytest.fail("again"))
    assert checkpoint.side_files() is found


PICKLE = b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00."
ZIP = b"PK\x03\x04\x14\x00\x00\x00archive/data.pkl"

PRIVATE = {
    **{"critic.model": PICKLE, "dict": ZIP, "policy_step_500": b"\x8c\x00\xff" * 99, "secret_terms": b"API_KEY=sk-1"},
    **{"inter_annotator_agreement.txt": b"Ann 0.3", "additional_chat_templates/id_rsa": b"-----BEGIN KEY-----"},
    # Others of their kinds.
    **{"reward.model": b"\x0a\x0b", "vocab": b"\x00\x01", "license_key.txt": b"1234", "LICENSE_SERVER": b"http://host"},
    **{"search_terms.txt": b"x", "loss_notice": b"x", "additional_chat_templates/env/.env": b"TOKEN=1"},
    **{"additional_chat_templates/notes.txt": b"x", "authors_emails.txt": b"a@b.c", "README.bin": b"x"},
}

DISGUISED = {
    **{"tokenizer.model": ZIP, "spiece.model": PICKLE, "vocab.txt": PICKLE, "README.md": ZIP, "assets/logo.png": ZIP},
    **{"LICENSE": b"MIT\0\0\0", "NOTICE.txt": b"\xff\xfe\xfd", "tokenizer.json": b"\x1f\x8b\x08"},
    **{
        "dict.txt": b"GGUF\3",
        "special_tokens_map.json": b"\x80\x02}q\x00.",
        "chat_template.jinja": bytes(257) + b"ustar",
    },
}

LEGAL = words("""
LICENSE LICENSE.txt LICENSE-APACHE LICENSE-2.0 LICENSE_MIT.txt LICENSE.pdf Gemma-License Community-License.pdf UNLICENSE
Llama_3.1_Community_License_Agreement.txt NOTICE NOTICE.txt COPYING THIRD_PARTY_NOTICES.txt ThirdPartyNotices.txt
ACCEPTABLE_USE_POLICY.txt USE_POLICY terms_of_use.txt README README.txt README_zh.txt AUTHORS Qwen_LICENSE
""")


@pytest.mark.parametrize("name", PRIVATE)
def test_what_a_name_only_seems_to_say_is_left_out(name: str, tmp_path: Path) -> None:
    put(tmp_path, "config.json", name)
    (tmp_path / name).write_bytes(PRIVATE[name])
    copied, left_out = sorted_out(tmp_path)
    assert copied == {"config.json"}
    assert left_out == ({name.split("/")[0]} if "/." not in name else set())


@pytest.mark.parametrize("name", DISGUISED)
def test_what_has_another_content_than_its_name_says_is_left_out(name: str, tmp_path: Path) -> None:
    put(tmp_path, "config.json", name)
    assert name in sorted_out(tmp_path)[0]
    (tmp_path / name).write_bytes(DISGUISED[name])
    assert sorted_out(tmp_path) == ({"config.json"}, {name.split("/")[0]})


@pytest.mark.parametrize("name", LEGAL)
def test_texts_of_a_licence(name: str, tmp_path: Path) -> None:
    put(tmp_path, name, content="© für alle" * 2**16)
    assert sorted_out(tmp_path) == ({name}, set())


def test_a_vocabulary_of_sentencepiece_is_carried(tmp_path: Path) -> None:
    """It is binary: a protocol buffer, whatever its name where a configuration gives it."""
    for name in ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "own.model"):
        (tmp_path / name).write_bytes(b"\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02\xff\x00")
    (tmp_path / "tokenizer_config.json").write_text('{"vocab_file": "own.model"}')
    assert sorted_out(tmp_path)[1] == set()
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert sorted_out(tmp_path)[1] == {"own.model"}
