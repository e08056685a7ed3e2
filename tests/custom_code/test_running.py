"""The code that runs is the code that was read: no copy, no compiled file, no other folder, and nothing afterwards."""

import json
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers
from own_code import make_decoder_pair, modules_in
from transformers import AutoConfig, dynamic_module_utils
from transformers.models.auto import configuration_auto

from hpa_merge.custom_code.finding import Code
from hpa_merge.custom_code.running import PACKAGE, class_of, is_running, running
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.own_code import Trust


def folder(path: Path, value: int, **files: str) -> Code:
    path.mkdir(parents=True)
    (path / "config.json").write_text(
        json.dumps({"model_type": "small", "auto_map": {"AutoConfig": "a.Small", "AutoModel": "gone.Model"}})
    )
    text = "from .b import VALUE\nfrom transformers import PretrainedConfig\nclass Small(PretrainedConfig):\n"
    (path / "a.py").write_text(f"{text}    model_type, value = 'small', VALUE\n{files.get('more', '')}")
    (path / "b.py").write_text(f"VALUE = {value}\n")
    code = Trust(True).code_of(path, "OLD")
    assert code is not None
    return code


def value_of(code: Code) -> int:
    with running(code):
        found = AutoConfig.from_pretrained(code.parts[""].folder, local_files_only=True, trust_remote_code=True).value
    assert isinstance(found, int)
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path) -> Iterator[Path]:
    """transformers' cache of code, which has to stay unused."""
    with modules_in(tmp_path / "cache") as folder:
        yield folder


def test_folders_of_one_name_have_their_own_code(tmp_path: Path, cache: Path) -> None:
    one, two = folder(tmp_path / "1" / "model", 1), folder(tmp_path / "2" / "model", 2)
    assert [value_of(each) for each in (one, two, one)] == [1, 2, 1]
    assert not cache.exists()
    assert not list(tmp_path.rglob("__pycache__"))


def test_what_was_read_is_run_even_if_the_folder_changes(tmp_path: Path) -> None:
    code = folder(tmp_path / "model", 1)
    (tmp_path / "model" / "b.py").write_text("VALUE = 2\n")
    assert value_of(code) == 1
    changed = Trust(True).code_of(tmp_path / "model", "OLD")
    assert changed is not None
    assert value_of(changed) == 2


def test_no_compiled_file_takes_the_place_of_the_source(tmp_path: Path) -> None:
    code = folder(tmp_path / "model", 1)
    (tmp_path / "evil.py").write_text("VALUE = 666\n")
    compiled = tmp_path / "model" / "__pycache__" / f"b.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(
        str(tmp_path / "evil.py"), str(compiled), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    assert value_of(code) == 1


def test_nothing_of_it_stays_with_transformers(tmp_path: Path) -> None:
    """What the code registers is known each time that it runs, and not in between."""
    code = folder(
        tmp_path / "model", 1, more="\nimport transformers\ntransformers.AutoConfig.register('small', Small)\n"
    )
    other = folder(tmp_path / "other", 2)
    kept = dict(configuration_auto.CONFIG_MAPPING._extra_content)
    originals = dynamic_module_utils.get_class_in_module, configuration_auto.resolve_trust_remote_code
    for _ in range(2):
        assert value_of(code) == 1
        with running(code):
            assert "small" in configuration_auto.CONFIG_MAPPING
        assert "small" not in configuration_auto.CONFIG_MAPPING
        assert value_of(other) == 2
    assert configuration_auto.CONFIG_MAPPING._extra_content == kept
    assert (dynamic_module_utils.get_class_in_module, configuration_auto.resolve_trust_remote_code) == originals
    assert not is_running()
    with pytest.raises(ValueError, match="contains custom code"):
        AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=False)


def test_only_code_that_was_read_is_run(tmp_path: Path) -> None:
    code = folder(tmp_path / "model", 1)
    (missing,) = (each for each in code.references if each.auto == "AutoModel")
    with running(code):
        with pytest.raises(CheckpointError, match=r"has no gone\.py, which auto_map in its configuration names"):
            class_of(code, missing)
        with pytest.raises(CheckpointError, match=r"asks for a\.py of evil/code, which no auto_map"):
            dynamic_module_utils.get_class_from_dynamic_module("evil/code--a.B", str(tmp_path / "model"))


def test_modules_may_import_later(tmp_path: Path) -> None:
    """A forward may import what its file names, after the model was built."""
    code = folder(
        tmp_path / "model", 1, more="\n    def late(self):\n        from .b import VALUE\n        return VALUE\n"
    )
    with running(code):
        found = AutoConfig.from_pretrained(tmp_path / "model", trust_remote_code=True)
    assert found.late() == 1
    assert type(found).__module__.startswith(f"{PACKAGE}.")
    assert Path(sys.modules[type(found).__module__].__file__ or "") == tmp_path / "model" / "a.py"


def test_as_transformers_runs_it(tmp_path: Path, cache: Path) -> None:
    """transformers itself, with its cache, makes the same model of the same folder."""
    old, _ = make_decoder_pair(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(old, trust_remote_code=True)
    code = Trust(True).code_of(old, "OLD")
    assert code is not None
    (reference,) = (each for each in code.references if each.auto == "AutoModelForCausalLM")
    with running(code):
        ours = class_of(code, reference).from_pretrained(old)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    copied = {path.name for path in cache.rglob("*.py")} - {"__init__.py"}
    assert copied <= set(code.parts[""].files)
