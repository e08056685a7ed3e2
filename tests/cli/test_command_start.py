"""The command as a process: it starts without torch, opens many files, and says when its output cannot be written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import Call

import hpa_merge

P_MIN = "Error: p_min is 20 and p_max is 15: lower p_min or raise p_max, so that p_min is not the greater.\n"


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
