"""The command: what it prints, its exit statuses, and that it starts without torch."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from cases import Call, status
from transformers.models.llama.modeling_llama import LlamaMLP

import hpa_merge
from hpa_merge.cli import main
from hpa_merge.config import HPAConfig

P_MIN = "Error: p_min is 20 and p_max is 15: lower p_min or raise p_max, so that p_min is not the greater.\n"


# --- wrong words ---


def test_missing_and_unknown_options_show_the_usage(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    for words, sentence in (
        ([], "Missing argument 'OLD'."),
        ([str(call.old), str(call.new)], "Missing option '--safety-calib'."),
        ([*call.arguments[:4], "-o", "out"], "Missing option '--task-calib'."),
        (call.arguments[:6], "Missing option '-o' / '--output'."),
        ([*call.arguments, "--selection", "best"], "'best' is not one of 'balanced', 'safety', 'shared'."),
        ([*call.arguments, "--p-maximum", "3"], "No such option '--p-maximum'"),
    ):
        with pytest.raises(SystemExit) as end:
            main(words)
        printed = capsys.readouterr()
        assert end.value.code == 2
        assert printed.err.startswith("Usage: hpa-merge [OPTIONS] OLD NEW\n")
        assert sentence in printed.err.splitlines()[-1]


@pytest.mark.parametrize("content", ["15: 3", "include: 5", "safety_calib: 5", "- p-max", "p-max: high", "p-max: [1"])
def test_a_yaml_file_of_the_wrong_kind(
    content: str, make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    words = [*call.arguments, "--config", str(call.write("options.yaml", content))]
    if "safety_calib" in content:
        words.remove("--safety-calib")
        words.remove(str(call.safety))
    with pytest.raises(SystemExit) as end:
        main(words)
    printed = capsys.readouterr().err
    assert end.value.code == 2, printed
    assert printed.count("\n") == 1


# --- right inputs ---


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(printed: str) -> list[list[str]]:
    """The words of each line, without the lines of a table."""
    return [re.sub("[│┃|]", " ", line).split() for line in printed.splitlines()]


def config_of(out: Path) -> dict[str, object]:
    return json.loads((out / "hpa_report.json").read_text())["config"]


def test_a_merge_prints_its_summary_and_its_notes(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("llava")
    call.safety = call.calibration({"text": "i cannot help with that."})
    call.write("new/extra.bin", "pickle")
    assert status(call) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("LlavaForConditionalGeneration: restored columns")
    assert re.search(r"linears +21 adapted, 2 unchanged by tuning, 19 uncalibrated", printed.out)
    assert "Is out safe again? Not known: nobody measured whether attacks succeed.\n" in printed.out
    assert f"  hpa-merge eval {call.old} {call.new} {call.out} --safety-test UNSAFE.jsonl " in printed.out
    assert printed.out.splitlines()[-3:] == [
        "Then, to publish it:",
        f"  hpa-merge push {call.out} YOUR-NAME/out --private",
        f"{call.out} is complete.",
    ]
    assert printed.err == (
        "Note: 19 of the changed linears came from NEW, because no token of the safety set or of the task set reached "
        "them: vision_tower.encoder.layers.0.mlp.fc1.weight, vision_tower.encoder.layers.0.mlp.fc2.weight, "
        "vision_tower.encoder.layers.0.self_attn.k_proj.weight, "
        "vision_tower.encoder.layers.0.self_attn.out_proj.weight and 15 more.\n"
        "Note: Not carried over from NEW: extra.bin.\n"
    )


def test_the_summary_is_whole_in_eighty_columns(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as rich takes it for a pipe
    call = make_call("llava")
    assert status(call) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert str(call.out) in printed
    assert "vision_tower" in printed
    assert "language_model" in printed
    assert "…" not in printed


def test_quiet_prints_nothing(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("gpt2")
    (call.new / "extra.bin").write_text("pickle")
    call.options = ("-q",)
    assert status(call) == 0
    assert capsys.readouterr() == ("", "")
    assert (call.out / "config.json").exists()


def test_a_dry_run_writes_nothing(make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    call = make_call("qwen2_tied")
    before = files_of(call.folder)
    call.options = ("--dry-run", "--exclude", "layers.0.*q_proj")
    assert status(call) == 0
    printed = capsys.readouterr()
    assert ["model.layers.0", "0/3", "15.0%", "6", "0", "1"] in (rows := table(printed.out))
    assert ["model.layers.2", "2/3", "8.3%", "7", "0", "0"] in rows
    assert printed.out.rstrip().endswith("Nothing was written.")
    assert printed.err == ""
    assert files_of(call.folder) == before


def test_a_dry_run_refuses_what_a_merge_would(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.out.mkdir()
    call.options = ("--dry-run",)
    assert status(call) == 2
    assert capsys.readouterr() == (
        "",
        f"Error: OUT {call.out} exists already: choose another folder, or replace it with --overwrite.\n",
    )
    call.options = ("--dry-run", "--overwrite")
    assert status(call) == 0


def test_the_command_line_wins_over_the_yaml_file(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("gpt2")
    lines = ["p-max: 30", "p_min: 10", "orthogonal: false", "include: c_fc", f"safety-calib: {call.safety}"]
    lines += [f"task_calib: {call.folder / 'nowhere'}", f"output: {call.out}", "selection: safety", "seed: 7"]
    words = ["--config", str(call.write("options.yaml", "\n".join(lines))), "--p-max", "15", "--seed", "0"]
    main([str(call.old), str(call.new), "--task-calib", str(call.task), *words])
    defaults = json.loads(json.dumps(vars(HPAConfig())))
    changed = {"p_min": 10.0, "orthogonal": False, "include": ["c_fc"], "selection": "safety"}
    assert config_of(call.out) == {**defaults, **changed}  # p_max and seed: given with the value of the default


def test_overwrite_replaces_out(make_call: Callable[..., Call]) -> None:
    call = make_call("gpt2")
    call.options = ("-q", "--p-max", "20")
    assert status(call) == 0
    call.write("out/vocab.txt", "of the first run")
    call.options = ("-q", "--overwrite", "--p-max", "25")
    assert status(call) == 0
    assert config_of(call.out)["p_max"] == 25.0
    assert not (call.out / "vocab.txt").exists()
    assert sorted(path.name for path in call.folder.iterdir()) == ["new", "old", "out"]


# --- what ends a run ---


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.parametrize("place", ["arithmetic", "forward"])
def test_an_interrupted_run_leaves_nothing(
    place: str, make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    if place == "arithmetic":
        monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", raising(KeyboardInterrupt()))
    else:
        monkeypatch.setattr(LlamaMLP, "forward", raising(KeyboardInterrupt()))
    assert status(call) == 130
    assert capsys.readouterr() == ("", "Error: interrupted: the same command with --resume continues.\n")
    assert sorted(path.name for path in call.folder.iterdir()) == ["new", "old"]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_mistake_of_ours(
    verbose: bool, make_call: Callable[..., Call], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call("gpt2")
    monkeypatch.setattr("hpa_merge.engine.unit_merge.adapt", raising(ZeroDivisionError("by zero")))
    call.options = ("-v",) if verbose else ()
    assert status(call) == 1
    *trace, last = capsys.readouterr().err.splitlines()
    assert last == ("Error: ZeroDivisionError: by zero (a bug of hpa-merge or of a library; -v shows the traceback)")
    assert ("Traceback (most recent call last):" in trace) == verbose
    assert verbose or not trace
    assert sorted(path.name for path in call.folder.iterdir()) == ["new", "old"]


def test_verbose_shows_where_an_input_was_refused(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.old = call.folder / "nowhere"
    call.options = ("--verbose",)
    assert status(call) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == f"Error: OLD {call.old} does not exist: give a folder in Hugging Face layout."


# --- as a program ---


def python(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False)


WITHOUT_TORCH = """
import sys
from hpa_merge.cli import main
try:
    main()
    status = 0
except SystemExit as end:
    status = end.code
print(status, [name for name in ("torch", "transformers", "safetensors", "PIL") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "Usage: hpa-merge [OPTIONS] OLD NEW"),
        (["--version"], 0, f"hpa-merge, version {hpa_merge.__version__}"),
        (["demo", "--help"], 0, "Usage: hpa-merge demo [OPTIONS] FOLDER"),
        (["a", "b", "--safety-calib=s", "--task-calib=t", "-o=o", "--p-min=20"], 2, P_MIN),
        (["tuen"], 2, "did you mean hpa-merge tune?"),
    ],
)
def test_help_and_wrong_options_answer_without_torch(words: list[str], code: int, said: str) -> None:
    done = python("-c", WITHOUT_TORCH, *words)
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{code} []"


REFUSED = """
import contextlib, io, sys
from hpa_merge.cli import main
for words, sentence in CASES:
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.suppress(SystemExit):
        main(words)
    assert sentence in told.getvalue(), (words, told.getvalue())
print([name for name in ("torch", "transformers", "PIL", "rich") if name in sys.modules])
"""


def broken_pairs(call: Call, sets: list[str], out: str) -> Iterator[tuple[list[str], str]]:
    """Calls with a NEW that is broken, or that does not belong to OLD, and what is said of each."""

    def broken(name: str, change: Callable[[Path], object]) -> list[str]:
        shutil.copytree(call.new, call.folder / name)
        change(call.folder / name)
        return [str(call.old), str(call.folder / name), *sets, "-o", out]

    def configured(**values: object) -> Callable[[Path], object]:
        def change(place: Path) -> None:
            path = place / "config.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

        return change

    def shard(place: Path) -> Path:
        return min(place.glob("*.safetensors"))

    pointer = "version https://git-lfs.github.com/spec/v1\n"
    yield broken("cut", lambda place: shard(place).write_bytes(shard(place).read_bytes()[:-10])), "is truncated"
    yield broken("pointer", lambda place: shard(place).write_text(pointer)), "is a Git LFS pointer"
    yield broken("wonder", configured(model_type="wonder")), "has the model_type 'wonder'"
    described = {"text_config": {"quantization_config": {"quant_method": "quip"}}}
    yield broken("quip", configured(**described)), "(text_config.quantization_config in config.json, method quip), and"
    yield broken("unsaid", configured(compression_config={"bits": 3})), "(compression_config in config.json, method"
    yield (
        broken("llama", configured(model_type="llama", architectures=["LlamaForCausalLM"])),
        "OLD is a GPT2LMHeadModel and NEW is a LlamaForCausalLM",
    )


def test_what_needs_no_torch_is_refused_without_it(make_call: Callable[..., Call]) -> None:
    call = make_call("gpt2")
    nowhere, bad = str(call.folder / "nowhere"), str(call.write("bad.jsonl", '{"text": '))
    old, new, good, out = map(str, (call.old, call.new, call.safety, call.out))
    sets = ["--safety-calib", good, "--task-calib", good]
    tests = ["--safety-test", f"s={good}", "--task-test", f"t={nowhere}"]
    (call.folder / "settings.yaml").write_text("- {p-max: 20}")
    stats = str(call.write("stats", "no statistics"))
    cases = [
        *((words, sentence) for words, sentence in broken_pairs(call, sets, out)),
        ([old, new, *sets, "-o", out, "--stats", stats], f"{stats} is not a whole statistics file"),
        ([old, new, *sets, "-o", out, "--stats", f"{old}/stats"], "would lie in the input"),
        ([old, new, *sets, "-o", out, "--stats", f"{nowhere}/stats"], "does not exist: create it first"),
        ([old, new, *sets, "-o", out, "--chat-template", f"{nowhere}.jinja"], "chat_template"),
        ([old, new, *sets, "-o", out, "--include", "no_such_layer"], "leave no linear to adapt"),
        (["verify", old, "--old", old], "has no hpa_report.json"),
        ([nowhere, new, *sets, "-o", out], f"OLD {nowhere} does not exist"),
        ([old, str(call.folder), *sets, "-o", out], "has no config.json"),
        ([old, new, *sets[:3], nowhere, "-o", out], f"the calibration file {nowhere} does not exist"),
        ([old, new, *sets[:3], bad, "-o", out], f"{bad}:1: not valid JSON"),
        ([old, new, *sets, "-o", old], "overlaps the input"),
        ([old, new, *sets, "-o", f"{nowhere}/out"], "does not exist: create it first"),
        ([old, new, *sets, "-o", out, "--push-to-hub", "no name"], "is not a name on the Hub"),
        (["sweep", nowhere, new, str(call.folder / "settings.yaml"), *sets, "-o", out], f"OLD {nowhere} does not"),
        (["tune", old, new, *sets, "-o", out, "--max-asr", "5", *tests], f"the test file {nowhere} does not exist"),
        (["eval", old, "--safety-test", f"s={bad}"], "not valid JSON"),
        (["calib", old, "--prompts", nowhere, "-o", out], f"the test file {nowhere} does not exist"),
        (["samples", nowhere, "--model", old], f"the calibration file {nowhere} does not exist"),
        (["samples", good, "--model", nowhere], f"MODEL {nowhere} does not exist"),
        (["verify", nowhere], f"OUT {nowhere} does not exist"),
        (["report", old], "has no hpa_report.json"),
        (["push", old, "a/b"], "has no hpa_report.json"),
        (["push", old, "no name"], "is not a name on the Hub"),
        (["demo", old], "needs a new or an empty folder"),
        (["inspect", nowhere], "does not exist"),
    ]
    done = python("-c", REFUSED.replace("CASES", repr(cases)))
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_module_is_the_command(make_call: Callable[..., Call]) -> None:
    call = make_call("gpt2")
    done = python("-m", "hpa_merge", *call.arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert "GPT2LMHeadModel: restored columns" in done.stdout
    assert (call.out / "hpa_report.json").exists()
    wrong = python("-m", "hpa_merge", *call.arguments, "--p-min", 20)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == P_MIN


def test_control_characters_are_shown_escaped(
    make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    call = make_call()
    call.old = call.folder / "a\x1b[2Jb\nc"
    assert status(call) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert r"a\x1b[2Jb\nc does not exist" in printed


def test_more_files_may_be_open_than_a_shell_grants():
    """Shards stay open: OLD's, NEW's and those of every OUT."""
    program = (
        "import resource\n"
        "_, most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, most))\n"
        "from hpa_merge.cli import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "finally:\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))\n"
    )
    assert python("-c", program).stdout.splitlines()[-1] == "True"


# --- where nothing can be printed ---


def printing(where: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with its output at ``where``, and files of one block at most."""
    command = f'ulimit -f 1; exec "$@" >{where}'
    process = ("bash", "-c", command, "bash", sys.executable, "-m", "hpa_merge", *words)
    return subprocess.run(process, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"], ["tune", "--help"]])
@pytest.mark.parametrize(("where", "why"), [("/dev/full", "No space left on device"), ("help.txt", "File too large")])
def test_a_disk_that_is_full_is_said(
    words: list[str], where: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(hpa_merge.__file__).parent.parent))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(tmp_path)
    Path("help.txt").write_text(" " * 1024)
    done = printing(f">{where}", *words)
    assert done.stderr == (f"Error: the output cannot be written ({why}): free some space, or choose another place.\n")
    assert done.returncode == 2


def test_where_no_complaint_can_be_read_the_status_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(hpa_merge.__file__).parent.parent))
    assert printing("/dev/null 2>/dev/full", "inspect", "nothing").returncode == 2
    assert printing("/dev/null 2>/dev/full", "nothing").returncode == 2
