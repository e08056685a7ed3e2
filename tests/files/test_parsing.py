"""JSON and YAML of others: bounded before it is parsed, by what it becomes; and read nowhere else."""

import ast
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

import hpa_merge
from hpa_merge.files import parsing
from hpa_merge.files.parsing import CONFIG, INDEX, LINE, REPORT, Limits, SurrogateError, parse_json
from hpa_merge.files.parsing_long import parse_items
from hpa_merge.files.parsing_yaml import parse_yaml

ROOT = Path(hpa_merge.__file__).parent
OPEN = Limits(2**30, 2**40)
"""No limit that these tests come near."""


def test_nothing_else_parses() -> None:
    """``json.loads`` of what we have just written ourselves, of the demo's own files and of bounded messages of our own
    children is all that is left."""
    allowed = {
        "files/parsing.py",
        "publishing/upload.py",
        "render/redraw.py",
        "demo/samples.py",
        "cli/tables/verdict.py",
        "tracking/content.py",
        "verification/stored.py",
    }
    allowed |= {"isolation/child.py", "isolation/host.py"}
    found = set()
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "json.loads",
                "json.load",
                "yaml.load",
                "yaml.safe_load",
            ):
                found.add(file.relative_to(ROOT).as_posix())
    assert found <= allowed


SHAPES = {
    "empty objects": "[" + ",".join(["{}"] * 10**5) + "]",
    "empty arrays": "[" + ",".join(["[]"] * 10**5) + "]",
    "one in another": "[" + ",".join(["[[[1]]]"] * 10**5) + "]",
    "objects of one key": "[" + ",".join(f'{{"{n:x}":{n}}}' for n in range(10**5)) + "]",
    "objects in objects": "[" + ",".join(f'{{"{n:x}":{{"{n:x}":{{}}}}}}' for n in range(10**5)) + "]",
    "one long object": "{" + ",".join(f'"{n:x}":{n}' for n in range(10**5)) + "}",
    "numbers": "[" + ",".join(f"{n}.5" for n in range(10**5)) + "]",
    "texts": "[" + ",".join(f'"{n:x}"' for n in range(10**5)) + "]",
    "texts of wide characters": "[" + ",".join(f'"{n:x}\U0001f600"' for n in range(10**5)) + "]",
    "one wide character": json.dumps(["a" * 10**6 + "\U0001f600"], ensure_ascii=False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_what_it_becomes_is_bounded_before(name: str) -> None:
    content = SHAPES[name].encode()
    tracemalloc.start()
    try:
        value = parse_json(content, OPEN)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert value
    with pytest.raises(ValueError, match="bytes of memory"):
        parse_json(content, Limits(2**30, peak - 2**20))  # less than it takes is refused
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes of memory"):
            parse_json(content, Limits(2**30, 2**16))
        _, refused = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused < 4 * len(content)  # and before it is parsed


def test_honest_files_are_read() -> None:
    names = [f"model.layers.{n // 100}.mlp.experts.{n % 100}.down_proj.weight" for n in range(10**5)]
    index = {
        "metadata": {"total_size": 1},
        "weight_map": {name: f"model-{n:05}.safetensors" for n, name in enumerate(names)},
    }
    assert parse_json(json.dumps(index, indent=2), INDEX, unique=True) == index
    labels = {
        "id2label": {str(n): f"label {n}" for n in range(21_843)},
        "label2id": {f"label {n}": n for n in range(21_843)},
    }
    assert parse_json(json.dumps(labels, indent=2), CONFIG) == labels
    record = {f"field_{n}": 0.5 for n in range(29)} | {"kept": "A" * 1000}
    report = json.dumps({"linears": [record] * 1000}, indent=1)
    assert REPORT.size > 100 * len(report)  # a model of 100,000 linears
    assert REPORT.memory > 100 * parsing.becomes(report.encode())
    tokens = json.dumps({"input_ids": list(range(10**6))})
    assert len(parse_json(tokens, LINE)["input_ids"]) == 10**6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 101 + b"]" * 101, "nested more than 100 deep"),
        (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "nested more than 100 deep"),
        (b'[{"a": [' * 60 + b"]}]" * 60, "nested more than 100 deep"),
        (b"9" * 5000, "digits"),
        (b"\xff\xfe[\x00]\x00", "codec can't decode"),
        (b'"\xed\xa0\x80"', "codec can't decode"),
        (b'"\\ud800"', r"half a pair of surrogates, \\ud800"),
        (b'"\\uDE00\\ud83D"', r"half a pair of surrogates, \\uDE00"),
        (b'{"\\\\\\ud83d": 1}', "half a pair of surrogates"),
        (b"[1, 2", "Expecting"),
        (b"", "Expecting value"),
        (b"\0", "Expecting value"),
    ],
)
def test_what_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(content, LINE)


def test_what_is_no_fault() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": "\\ud83d\\ude00 \\\\ud83d"}', LINE) == {"a": "\U0001f600 \\ud83d"}
    assert parse_json(b"[" * 100 + b"]" * 100, LINE)
    assert parse_json(b'{"a": 1, "a": 2, "b": Infinity}', LINE) == {"a": 2, "b": float("inf")}
    with pytest.raises(ValueError, match="it has the key 'a' twice"):
        parse_json(b'{"x": {"a": 1, "a": 2}}', LINE, unique=True)
    for number in ("Infinity", "-Infinity", "NaN", "1e999"):
        with pytest.raises(ValueError, match="is not a finite number"):
            parse_json(f"[{number}]", LINE, finite=True)


# --- arrays, item by item ---------------------------------------------------------------------------------------------


def items(content: bytes, limits: Limits = LINE) -> list[Any]:
    return list(parse_items(io.BytesIO(content), limits))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize(
    "value",
    [[], [1], [12, -3.5e2, True, None], ["a,]b", 'c"]', "\\", "ä\U0001f600"], [{"a": [1, {"b": "}"}]}, [[]]], [[], {}]],
)
def test_an_array_is_what_json_says(value: list[Any], step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "STEP", step)
    for content in (
        json.dumps(value),
        json.dumps(value, ensure_ascii=False, indent=3),
        f" \n\t{json.dumps(value)}\r\n ",
    ):
        assert items(content.encode()) == value


@pytest.mark.parametrize("step", [1, 5, 2**20])
@pytest.mark.parametrize(
    "content", ["[1, 2", "[1 2]", "[1,]", "[,1]", "[1]]", "[1] 2", "[1, x]", "[", "", '["a', "[\n1,\n\n  {]"]
)
def test_a_broken_array_is_named_as_json_names_it(content: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "STEP", step)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(content)
    with pytest.raises(json.JSONDecodeError) as caught:
        items(content.encode())
    if content:
        assert (caught.value.lineno, caught.value.colno) == (expected.value.lineno, expected.value.colno)


def test_the_items_of_a_long_array_are_not_held(tmp_path: Path) -> None:
    item = b'{"text": "' + b"x" * 1000 + b'"}'
    content = b"[" + b",\n".join([item] * 20_000) + b"]"
    (tmp_path / "a.json").write_bytes(content)
    tracemalloc.start()
    try:
        with (tmp_path / "a.json").open("rb") as file:
            count = sum(1 for _ in parse_items(file, LINE))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < len(content) / 2


def test_an_item_is_bounded() -> None:
    with pytest.raises(ValueError, match="longer than 1000 bytes"):
        items(b'["' + b"x" * 2**22 + b'"]', Limits(1000, 2**30))
    with pytest.raises(ValueError, match="bytes of memory"):
        items(b"[[" + b",".join([b"{}"] * 10**6) + b"]]", Limits(2**24, 2**24))
    with pytest.raises(SurrogateError):
        items(b'["a", "\\ud800"]')
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        items(b"[" * 10**5)


# --- files ------------------------------------------------------------------------------------------------------------


def test_only_regular_files_of_a_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"12345")
    assert parsing.read_bounded(path, 5) == b"12345"
    with pytest.raises(ValueError, match="longer than 4 bytes"):
        parsing.read_bounded(path, 4)
    os.truncate(path, 10**11)  # sparse
    with pytest.raises(ValueError, match="longer than 16777216 bytes"):
        parsing.read_json(path, CONFIG)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="not a regular file"):
            parsing.read_json(place, CONFIG)
    with pytest.raises(IsADirectoryError):
        parsing.read_json(tmp_path, CONFIG)
    with pytest.raises(ValueError, match="more bytes than the file system says"):
        parsing.read_bounded(Path("/proc/self/environ"), 10**6)


# --- YAML -------------------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LAUGHS, "its aliases stand for more than 16777216 characters"),
        ("a: &a " + "x" * 10**5 + "\nb: [" + ", ".join(["*a"] * 10**4) + "]", "its aliases stand for more than"),
        (
            "- &a {x: 1}\n"
            + "".join(f"- &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 9)}]}}\n" for n in range(9)),
            "stand for",
        ),
        ("&a [*a]", "contains itself"),
        ("&a {b: {c: *a}}", "contains itself"),
        ("[" * 10**4, "nested too deeply"),
        ("x: 0x" + "f" * 10**5, "a number of more than 100 digits"),
        ("x: !!int hello", "invalid literal"),
        ("x: !!timestamp hello", "does not fit its tag"),
        ("x: !!bool perhaps", "does not fit its tag"),
        ("x: 2001-99-99", "month must be in"),
        ('x: "\\ud800"', "half a pair of surrogates"),
        ("x: " + "y" * 2**20, "longer than 1048576 bytes"),
    ],
)
def test_yaml_that_means_harm(content: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_yaml(content.encode())


def test_yaml_with_anchors_is_yaml() -> None:
    content = "- &base {p-max: 10, include: [a, b]}\n- {<<: *base, p-max: 12}\n"
    assert parse_yaml(content) == yaml.safe_load(content)
    assert parse_yaml("") is None
    with pytest.raises(yaml.YAMLError):
        parse_yaml("a: !!python/object:os.system {}")
    with pytest.raises(yaml.YAMLError):
        parse_yaml("a: *b")
