"""A library that is hidden is missing within the block, and there again after it."""

import sys
from importlib.util import find_spec

import pytest

from hpa_merge.libraries.hiding import hidden


@pytest.mark.parametrize("imported", [True, False])
def test_hidden(imported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import tomllib

    if not imported:
        monkeypatch.delitem(sys.modules, "tomllib")
    with hidden("tomllib"):
        assert find_spec("tomllib") is None
        with pytest.raises(ImportError):
            __import__("tomllib")
    assert sys.modules.get("tomllib") is (tomllib if imported else None)
    assert find_spec("tomllib") is not None
