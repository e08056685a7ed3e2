"""Errors in a checkpoint's own code are one sentence that names the class, the file and the line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from own_code import AUTO, make_decoder_pair

from hpa_merge.calibration.loading import reason
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.custom_code.finding import Code
from hpa_merge.custom_code.running import PACKAGE, is_running, running
from hpa_merge.engine.meta_models import meta_model
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.own_code import Trust


class Pristine(NamedTuple):
    """A checkpoint of the tiny decoder, to be spoilt and put right again."""

    folder: Path
    files: dict[str, str]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Pristine:
    folder, _ = make_decoder_pair(tmp_path_factory.mktemp("own"))
    return Pristine(
        folder, {path.name: path.read_text() for path in folder.iterdir() if path.suffix in (".py", ".json")}
    )


@pytest.fixture
def folder(pristine: Pristine) -> Path:
    for name, text in pristine.files.items():
        (pristine.folder / name).write_text(text)
    return pristine.folder


def refusal(folder: Path, *, trusted: bool = True) -> str:
    """The sentence with which the model of a folder is refused."""
    with Trust(trusted).with_code(Checkpoint.open(folder, "OLD")) as opened, pytest.raises(CheckpointError) as caught:
        meta_model(opened, torch.device("cpu"))
    assert not is_running()
    return str(caught.value)


MODELING, PARTS = "modeling_tinydec.py", "tinydec_parts.py"


IN_MIXER = r"Mixer\.__init__ \(tinydec_parts\.py, line \d+\) "


@pytest.mark.parametrize(
    ("file", "was", "now", "sentence"),
    [
        (
            *(MODELING, "import torch", "import torch\nraise ValueError('boom.\\nmore')"),
            r"its import \(modeling_tinydec\.py, line 3\) \(ValueError: boom\)",
        ),
        (
            *(MODELING, "self.post_init()", "self.later.now()"),
            r"TinyDecForText\.__init__ \(modeling_tinydec\.py, line 21\) \(AttributeError: ",
        ),
        (PARTS, "super().__init__()", "super().__init__(); 1 / 0", rf"{IN_MIXER}\(ZeroDivisionError: "),
        (PARTS, "super().__init__()", "super().__init__(); exit(7)", rf"{IN_MIXER}\(SystemExit: 7\)"),
        (PARTS, "class Mixer", "def (", r"its import \(tinydec_parts\.py, line \d+\) \(SyntaxError: "),
        (MODELING, "class Tiny", "def (", r"its import \(modeling_tinydec\.py, line \d+\) \(SyntaxError: "),
        (
            *("configuration_tinydec.py", "super().__init__", "super().nothing"),
            r"TinyDecConfig\.__init__ \(configuration_tinydec\.py, line \d+\)",
        ),
    ],
)
def test_where_it_fails(file: str, was: str, now: str, sentence: str, folder: Path) -> None:
    text = (folder / file).read_text()
    assert was in text
    (folder / file).write_text(text.replace(was, now, 1))
    found = refusal(folder)
    assert re.match(rf"OLD's own code fails in {sentence}", found), found
    assert found.endswith(": ask its authors which versions of the libraries it needs, or correct that file.")
    assert "\n" not in found


def add_import(folder: Path, module: str = "no_such_package.inner") -> None:
    (folder / PARTS).write_text(f"import {module}\n" + (folder / PARTS).read_text())


def configure(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def naming(name: str) -> Callable[[Path], object]:
    return configure(auto_map=AUTO | {"AutoModelForCausalLM": name})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (
            add_import,
            r"OLD's own code needs no_such_package, which is not installed \(its import \(tinydec_parts\.py, ",
        ),
        (
            lambda folder: (folder / MODELING).unlink(),
            r".*/old has no modeling_tinydec\.py, which auto_map in its configuration names: add that file",
        ),
        (
            lambda folder: (folder / PARTS).unlink(),
            r"OLD's own code imports tinydec_parts\.py, which is not there \(its import \(modeling_tinydec\.py, line "
            r"\d+\)\): add that file, from the model that it was tuned from or from the Hub\.$",
        ),
        (
            lambda folder: add_import(folder, "transformers.of_another_version"),
            r"OLD's own code fails in its import \(tinydec_parts\.py, line 1\) \(ModuleNotFoundError: .*\): ask its "
            r"authors which versions",
        ),
        (naming("modeling_tinydec.Nothing"), r"modeling_tinydec\.py has no class Nothing, which auto_map"),
        (
            naming("tinydec_parts.Mixer"),
            r"OLD's own code has Mixer in tinydec_parts\.py, which is not a PreTrainedModel",
        ),
        (
            configure(auto_map={"AutoConfig": AUTO["AutoConfig"]}),
            r"OLD's architecture is TinyDecForText, which transformers .* does not have",
        ),
        (configure(num_hidden_layers=10**9), r"OLD's config\.json has 1e\+09 for num_hidden_layers, which is too many"),
        (configure(width=31), r"OLD"),
    ],
)
def test_what_is_missing(spoil: Callable[[Path], object], sentence: str, folder: Path) -> None:
    spoil(folder)
    found = refusal(folder)
    assert re.match(sentence, found), found
    assert "\n" not in found


def test_a_class_that_is_not_as_transformers_wants_it(folder: Path) -> None:
    """A class of another version: nothing of it is on the stack where it fails."""
    text = (folder / MODELING).read_text()
    (folder / MODELING).write_text(text.replace("        self.post_init()\n", ""))
    assert re.match(
        r"OLD's own code makes a model that transformers \S+ cannot use \(AttributeError: .*\): ask its authors which",
        refusal(folder),
    )


def test_an_error_without_a_message() -> None:
    with pytest.raises(AssertionError) as caught:
        exec(compile("assert False", "words.py", "exec"), {"__name__": f"{PACKAGE}.c0.words"})
    assert reason(caught.value) == "AssertionError in its import (words.py, line 1)"


def test_without_the_option_it_is_refused_and_the_option_named(folder: Path) -> None:
    (folder / "configuration_tinydec.py").write_text("raise SystemExit('run')")
    assert refusal(folder, trusted=False) == (
        "OLD brings code of its own for its configuration (configuration_tinydec.py, modeling_tinydec.py, named by "
        "auto_map in config.json), and such code is not run: read it, and give --trust-remote-code (trust_remote_code "
        "in Python) if you trust it."
    )
    configure(model_type="llama", auto_map={"AutoModel": AUTO["AutoModelForCausalLM"]})(folder)
    assert refusal(folder, trusted=False).startswith("OLD brings code of its own for its architecture TinyDecForText (")


def test_nothing_is_trusted_that_no_reference_names(folder: Path) -> None:
    code = Trust(True).code_of(folder, "OLD")
    assert isinstance(code, Code)
    with running(code):
        assert is_running()
    assert Trust(False).code_of(folder, "OLD") is None
    for name in ("config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    assert Trust(True).code_of(folder, "OLD") is None
