"""What somebody, or a broken disk, puts in the place of OUT's journal or into it: none of it is believed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase
from interruptions import beside, interrupt, run, shards_of, without_warnings
from measured import measured
from statistics_runs import interrupt as interrupt_statistics
from statistics_runs import run as run_statistics

from hpa_merge.checkpoint import begun_with
from hpa_merge.checkpoint.journal import Journal
from hpa_merge.errors import OutputError
from hpa_merge.files import parsing
from hpa_merge.files.disk import Foreign
from hpa_merge.files.parsing import Limits

Tiny = Callable[..., TinyCase]


@pytest.mark.parametrize(
    "kind", ["link to a shard", "hard link", "pipe", "/dev/zero", "folder", "somebody's file", "sparse"]
)
def test_what_stands_where_the_journal_belongs(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("gpt2").copied_to(tmp_path)
    before, journal = shards_of(case.old), tmp_path / "out.partial.journal"
    (theirs := tmp_path / "theirs").write_text("work")
    if kind == "link to a shard":
        journal.symlink_to(next(case.old.glob("*.safetensors")))
    elif kind == "hard link":
        journal.hardlink_to(theirs)
    elif kind == "pipe":
        os.mkfifo(journal)
    elif kind == "/dev/zero":
        journal.symlink_to("/dev/zero")
    elif kind == "folder":
        journal.mkdir()
    elif kind == "sparse":
        with journal.open("wb") as file:
            file.truncate(2**40)
    else:
        journal.write_text('{"messages": []}\n')
    size = journal.lstat().st_size
    for resume in (False, True):
        overlaps, remedy = "overlaps the input", ": remove it, or choose another place for OUT"
        with pytest.raises(OutputError, match=overlaps if kind == "link to a shard" else remedy):
            run(case, tmp_path / "out", resume=resume)
    assert journal.lstat().st_size == size
    assert shards_of(case.old) == before
    assert theirs.read_text() == "work"
    assert not (tmp_path / "out.partial").exists()


def test_a_calibration_file_of_that_name(tiny: Tiny, tmp_path: Path) -> None:
    case, journal = tiny("gpt2"), tmp_path / "out.partial.journal"
    shutil.copy(case.task, journal)
    with pytest.raises(OutputError, match="overlaps the input"):
        run(case._replace(task=journal), tmp_path / "out")
    assert journal.read_bytes() == case.task.read_bytes()


def test_the_journal_of_another_version(tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    interrupt(case, out)
    journal = Path(f"{out}.partial.journal")
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    for was in (b'{"fingerprint": {}}\n', first.replace(b'journal": 4', b'journal": 2')):
        journal.write_bytes(was + b"".join(rest))
        with pytest.raises(OutputError, match="another version of hpa-merge has begun this run"):
            run(case, out, resume=True)
        assert beside(out) == ["out.partial", "out.partial.journal"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda line: line["tensors"].update({"../../old/x": 0}),
        lambda line: line["tensors"].update(dict.fromkeys(line["tensors"], 0)),
        lambda line: line["tensors"].update(dict.fromkeys(line["tensors"], "0" * 64)),
        lambda line: line.update(tensors=["transformer.h.0.mlp.c_fc.weight"]),
        lambda line: line.pop("entry"),
    ],
    ids=["a tensor that NEW has not", "other checksums", "digests", "no checksums", "no entry"],
)
def test_forged_lines_are_not_believed(forge: Callable[[Any], object], tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    run(case, tmp_path / "whole")
    interrupt(case, out)
    journal = Path(f"{out}.partial.journal")
    *lines, last = journal.read_text().splitlines(keepends=True)
    forge(line := json.loads(last))
    journal.write_text("".join(lines) + json.dumps(line) + "\n")
    run(case, out, resume=True)
    assert without_warnings(out) == without_warnings(tmp_path / "whole")


@pytest.mark.parametrize("entry", [{}, 5, {"linears": [{"nonsense": 1}], "unit": "x"}, {"linears": 1, "unit": 1}])
def test_a_forged_entry_is_a_sentence(entry: Any, tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    interrupt(case, out)
    journal = Path(f"{out}.partial.journal")
    *lines, last = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines) + json.dumps(json.loads(last) | {"entry": entry}) + "\n")
    for _ in range(2):  # the lock is given back, and nothing is deleted
        with pytest.raises(OutputError, match=r"is damaged .*: delete that folder, and run the same command again"):
            run(case, out, resume=True)


def test_a_line_of_more_than_any_run_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the lines become in memory is bounded, of one line and of all; nothing of the file is cut off."""
    path = tmp_path / "out.partial.journal"
    first = '{"hpa-merge journal": 4, "fingerprint": {}}\n'
    line = json.dumps({"tensors": {}, "entry": [[]] * 1000}) + "\n"
    monkeypatch.setattr(parsing, "JOURNAL", Limits(2**20, 2**19))
    path.write_text(first + line * 2)
    (journal := Journal(path)).close()
    assert len(journal.lines) == 3
    deep = '{"tensors": {}, "entry": ' + "[" * 500 + "]" * 500 + "}\n"
    for wrong, why in (
        (line * 3, "bytes of memory"),
        (f'{{"a": "{"x" * 2**22}"}}', "it is longer than"),
        (deep, "deep"),
    ):
        path.write_text(first + wrong)
        with pytest.raises(Foreign, match=f"no run has written one of its lines: .*{why}"):
            Journal(path)
        assert path.read_text() == first + wrong


def test_a_first_line_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    path, beginning = tmp_path / "out.partial.journal", '{"hpa-merge journal": 4, "fingerprint": {"x": ['
    for wrong in ("[]," * 2**21, "[]," * 2**20 + "[]]}}\n"):
        path.write_text(beginning + wrong)
        found = measured(begun_with, tmp_path / "out")
        assert found.error is None
        assert found.peak < 2**26
        with pytest.raises(Foreign, match="no run has written one of its lines: "):
            Journal(path)
        assert path.read_text() == beginning + wrong


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "out.partial.journal")
    journal.begin({"exclude": ["\udcff"]}, ["\udcfe"])
    journal.close()
    (again := Journal(tmp_path / "out.partial.journal")).close()
    assert again.lines[0]["fingerprint"] == {"exclude": ["\udcff"]}
    assert again.side_files == ("\udcfe",)


@pytest.mark.parametrize(("name", "value"), [("p_max", "x" * 10**6), ("y" * 10**6, 1)])
def test_a_forged_fingerprint_is_a_short_sentence(name: str, value: object, tiny: Tiny, tmp_path: Path) -> None:
    case, out = tiny("gpt2"), tmp_path / "out"
    interrupt(case, out)
    journal = Path(f"{out}.partial.journal")
    first, *rest = journal.read_text().splitlines(keepends=True)
    forged = json.loads(first)
    forged["fingerprint"][name] = value
    journal.write_text(json.dumps(forged) + "\n" + "".join(rest))
    with pytest.raises(OutputError, match="was begun with ") as caught:
        run(case, out, resume=True)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "forge",
    [
        lambda entry: entry["linears"][0].update(distance="far"),
        lambda entry: entry["linears"][0].update(columns=[64]),
        lambda entry: entry["linears"][0].update(n_restored=-1),
        lambda entry: entry["linears"][0].update(restored="AAAA"),
        lambda entry: entry["linears"][0].update(outcome="lost"),
        lambda entry: entry["linears"][0].update(name="lm_head.weight"),
        lambda entry: entry["linears"].pop(),
        lambda entry: entry["linears"].append(entry["linears"][0]),
        lambda entry: entry.update(unit=["transformer.h.0"]),
        lambda entry: entry["statistics"]["safety"].update(visits=5),
        lambda entry: entry["statistics"]["safety"].update(visits=["nowhere"]),
        lambda entry: entry["statistics"]["task"]["linears"].update(x=[1, None]),
        lambda entry: _first(entry).__setitem__(0, "many"),
        lambda entry: _first(entry).__setitem__(0, -1),
        lambda entry: _first(entry).__setitem__(1, "AAAAAAAA8D8="),
        lambda entry: _first(entry).__setitem__(1, "AAAA" * 10),
        lambda entry: _first(entry).__setitem__(1, "A" * len(_first(entry)[1][:-4]) + _first(entry)[1][-4:]),
        lambda entry: _first(entry).__setitem__(1, 7),
    ],
)
def test_a_forged_value_of_an_entry_is_a_sentence(forge: Callable[[Any], object], tiny: Tiny, tmp_path: Path) -> None:
    """Not a mistake of ours at the end of the merge, and the same sentence again."""
    case, out = tiny("gpt2"), tmp_path / "out"
    interrupt_statistics(case, out, tmp_path / "stats", 1)
    journal = Path(f"{out}.partial.journal")
    *lines, last = journal.read_text().splitlines(keepends=True)
    line = json.loads(last)
    forge(line["entry"])
    journal.write_text("".join(lines) + json.dumps(line) + "\n")
    for _ in range(2):
        with pytest.raises(OutputError, match=r"is damaged .*: delete that folder, and run the same command again"):
            run_statistics(case, out, tmp_path / "stats", resume=True)
    assert beside(out) == ["out.partial", "out.partial.journal"]


def _first(entry: Any) -> list[Any]:
    """Tokens and vector of the first linear of the safety half."""
    return next(iter(entry["statistics"]["safety"]["linears"].values()))
