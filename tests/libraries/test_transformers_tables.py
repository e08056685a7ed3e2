"""transformers' tables as its source has them are those that it has when it is imported."""

import sys

import pytest
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from hpa_merge.libraries import transformers_tables as tables
from hpa_merge.render.card.usage import KINDS


def test_the_classes_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, tables.CLASSES)
    monkeypatch.setattr(tables, "import_module", None)  # the source alone
    for _, kind in KINDS:
        name = f"MODEL_FOR_{kind}_MAPPING_NAMES"
        assert tables.classes_of.__wrapped__(name) == set(getattr(modeling_auto, name).values())


def test_another_source_is_no_table() -> None:
    assert tables.classes_in("TABLE = made()\n", "TABLE") == set()
    assert tables.classes_in('TABLE = dict(\n    [("a", "B")]\n)\n', "TABLE") == {"B"}


def test_no_type_that_transformers_has_is_unknown() -> None:
    assert [kind for kind in CONFIG_MAPPING_NAMES if tables.is_unknown_type(kind)] == []
    assert tables.is_unknown_type("wonder")
    assert tables.is_own_class("qwen2", "Qwen2ForCausalLM")
    assert not tables.is_own_class("qwen2", "MistralForCausalLM")
