"""Which files are a checkpoint's code: from ``auto_map`` in any form, and from imports in any form."""

import json
from pathlib import Path

import pytest
from own_code import FILES

from hpa_merge.custom_code.comparing import differing
from hpa_merge.custom_code.finding import Code, find_references, read_part, relative_imports
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.own_code import Trust


@pytest.mark.parametrize(
    ("text", "path", "found"),
    [
        ("from .parts import A", "m.py", {"parts.py"}),
        ("    from .parts import A  # here", "m.py", {"parts.py"}),
        ("from . import parts, other as o", "m.py", {"parts.py", "other.py"}),
        ("from . import (\n    parts,\n    other,\n)", "m.py", {"parts.py", "other.py"}),
        ("from . import parts, \\\n    other", "m.py", {"parts.py", "other.py"}),
        ("from .parts.inner import A", "m.py", {"parts/__init__.py", "parts/inner.py"}),
        ("from ..top import A", "parts/inner.py", {"top.py"}),
        ("from .. import top", "parts/inner.py", {"top.py"}),
        ("try:\n\tfrom .parts import A\nexcept ImportError:\n\tA = None", "m.py", {"parts.py"}),
        ("from ...beyond import A", "m.py", set()),
        ("from parts import A\nimport parts", "m.py", set()),
    ],
)
def test_relative_imports(text: str, path: str, found: set[str], tmp_path: Path) -> None:
    there = {"parts.py", "other.py", "parts/inner.py", "parts/__init__.py", "top.py", "beyond.py"}
    named = set(relative_imports(text, path)) & there
    assert named - {"parts/__init__.py", "parts.py"} == found - {"parts/__init__.py", "parts.py"}
    assert found <= named


def test_imports_are_found_in_linear_time() -> None:
    for evil in (
        "from " + "." * 10**6,
        "from . import (" * 10**5,
        "from . import a" + "\\\n" * 10**5,
        "from\t" * 10**5,
    ):
        relative_imports(evil, "m.py")


@pytest.mark.parametrize(
    ("file", "content", "found"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "a.B"}}, {("AutoConfig", "", "a.py", "B")}),
        ("config.json", {"auto_map": {"AutoModel": "o/r--a.B"}}, {("AutoModel", "o/r", "a.py", "B")}),
        ("tokenizer_config.json", {"auto_map": ["a.B", None]}, {("AutoTokenizer", "", "a.py", "B")}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "a.B"]}}, {("AutoTokenizer", "", "a.py", "B")}),
        (
            "preprocessor_config.json",
            {"auto_map": {"AutoImageProcessor": {"pil": "a.B", "torchvision": "a.C"}}},
            {("AutoImageProcessor", "", "a.py", "B"), ("AutoImageProcessor", "", "a.py", "C")},
        ),
        (
            "processor_config.json",
            {"image_processor": {"auto_map": {"AutoImageProcessor": "a.B"}}},
            {("AutoImageProcessor", "", "a.py", "B")},
        ),
        ("config.json", {"auto_map": {"AutoConfig": "../../etc.B", "AutoModel": 5, "X": "a"}}, set()),
        ("config.json", {"auto_map": None}, set()),
        ("other.json", {"auto_map": {"AutoConfig": "a.B"}}, set()),
    ],
)
def test_references(file: str, content: object, found: set[tuple[str, ...]], tmp_path: Path) -> None:
    (tmp_path / file).write_text(json.dumps(content))
    references = find_references(tmp_path)
    assert {(each.auto, each.repository, each.path, each.name) for each in references} == found


def test_what_cannot_be_parsed_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"auto_map": ')
    (tmp_path / "tokenizer_config.json").write_text("[" * 10**5)
    assert find_references(tmp_path) == ()


def folder(path: Path, files: dict[str, str], auto: dict[str, object]) -> Code:
    """The code of a folder with these files; what no import reaches lies there too."""
    path.mkdir()
    for name, text in (files | {"unused.py": "raise SystemExit"}).items():
        (path / name).write_text(text)
    (path / "config.json").write_text(json.dumps({"auto_map": auto}))
    (path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": [None, "words.Words"]}}))
    code = Trust(True).code_of(path, "OLD")
    assert code is not None
    return code


AUTO: dict[str, object] = {"AutoModelForCausalLM": "modeling_tinydec.TinyDecForText"}


def test_the_digest_is_of_what_is_reached_wherever_it_lies(tmp_path: Path) -> None:
    codes = [folder(tmp_path / name, FILES | {"words.py": "A = 1"}, AUTO) for name in "ab"]
    assert set(codes[0].parts[""].files) == {*FILES, "words.py"}
    assert codes[0].digest == codes[1].digest
    assert codes[0].contents(of_the_model=True).keys() == FILES.keys()
    assert codes[0].contents(of_the_model=False).keys() == {"words.py"}
    other = folder(tmp_path / "c", FILES | {"words.py": "A = 2"}, AUTO)
    assert other.digest != codes[0].digest
    assert (differing(codes[0], other, of_the_model=True), differing(codes[0], other, of_the_model=False)) == (
        [],
        ["words.py"],
    )


def test_only_the_class_that_is_used_counts(tmp_path: Path) -> None:
    """A classifier that one of the two lacks is not a difference, nor is a class that is tried later."""
    files = {"m.py": "A = 1", "c.py": "from .m import A", "words.py": ""}
    old = folder(tmp_path / "old", files, {"AutoModelForCausalLM": "m.A", "AutoModel": "c.A"})
    new = folder(tmp_path / "new", files, {"AutoModelForCausalLM": "m.A", "AutoModelForSequenceClassification": "x.A"})
    assert old.model == new.model
    assert differing(old, new, of_the_model=True) == differing(old, new, of_the_model=False) == []
    assert old.digest != new.digest


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("# of 2026\nA = 1\n\n\ndef f(x):\n    '''Docs.'''\n    return (x)", True),
        ("'''Docs.'''\nA = 0x1\ndef f(x): return x", True),
        ('"""Of \\d digits."""\nA = 1\ndef f(x): return x', True),
        ("A = 2\ndef f(x): return x", False),
        ("A = 1\ndef f(x): return -x", False),
        ("A = 1\ndef f(x) return x", False),
    ],
)
def test_comments_docstrings_and_layout_are_no_difference(text: str, same: bool, tmp_path: Path) -> None:
    auto: dict[str, object] = {"AutoModel": "m.M"}
    codes = [
        folder(tmp_path / str(n), {"m.py": each}, auto) for n, each in enumerate(["A = 1\ndef f(x): return x", text])
    ]
    assert differing(*codes, of_the_model=True) == ([] if same else ["m.py"])
    assert differing(codes[0], None, of_the_model=True) == ["m.py"]


def test_code_that_is_not_the_folders_own_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("KEY = 1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "a.B"}}))
    (tmp_path / "model" / "a.py").symlink_to(tmp_path / "secret.py")
    references = find_references(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"a\.py is not read, because it is a link that leads out of the folder"):
        read_part("", "", tmp_path / "model", references, "OLD")
    (tmp_path / "model" / "a.py").unlink()
    (tmp_path / "model" / "a.py").write_bytes(b"#" * (2**22 + 1))
    with pytest.raises(CheckpointError, match=r"a\.py is not read, because it is longer than"):
        read_part("", "", tmp_path / "model", references, "OLD")
