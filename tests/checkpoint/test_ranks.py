"""Several ranks that write one OUT: the same bytes, journals that are joined, locks that hold for all of them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from checkpoint_folders import everything, sharded_folder  # noqa: F401 - a fixture

from hpa_merge.checkpoint import Checkpoint, CheckpointWriter, beginning
from hpa_merge.checkpoint.joining import Rank, journal_of, journals, whole_commits
from hpa_merge.checkpoint.output import check_output
from hpa_merge.errors import OutputError

Ranks = Callable[..., list[CheckpointWriter]]


@pytest.fixture
def new(sharded: Path) -> Path:
    """Three shards of two tensors each."""
    return sharded


@pytest.fixture
def source(new: Path) -> Iterator[Checkpoint]:
    with Checkpoint.open(new, "NEW") as opened:
        yield opened


@pytest.fixture
def begin(source: Checkpoint, new: Path, tmp_path: Path) -> Ranks:
    """``begin(count, resume=False)``: the writers of so many ranks."""

    def make(count: int, *, resume: bool = False) -> list[CheckpointWriter]:
        ranks = [Rank(number, count) for number in range(count)]
        given: dict[str, Any] = {"inputs": [new], "fingerprint": {"a": 1}, "resume": resume}
        return [CheckpointWriter(source, tmp_path / "out", rank=rank, **given) for rank in ranks]

    return make


def finish(writers: Sequence[CheckpointWriter], source: Checkpoint) -> None:
    """Write what is missing, each rank its part, and publish."""
    left = [name for name in source.tensors if all(name in writer.remaining() for writer in writers)]
    for number, name in enumerate(left):
        writers[number % len(writers)].copy(name)
    first, *others = writers
    for other in others:
        first.adopt(other.sync())
    assert first.remaining() == ()
    first.publish({})
    for other in others:
        other.leave()


def write(writers: Sequence[CheckpointWriter], source: Checkpoint, names: Sequence[str]) -> None:
    """A unit of which each rank writes some tensors, without the commits."""
    for number, name in enumerate(names):
        writers[number % len(writers)].write(name, source.read(name))


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "sharded")


def line(commit: int | None, rank: int = 0, count: int = 1, text: str = "") -> dict[str, Any]:
    part = {} if commit is None else {"part": [commit, rank, count]}
    return {"tensors": {}, "entry": text or f"{commit}.{rank}", **part}


@pytest.mark.parametrize(
    ("lines", "entries", "damaged"),
    [
        ([line(None, text="a"), line(None, text="b")], ["a", "b"], 0),
        ([line(0, 0, 2), line(1, 0, 2), line(0, 1, 2), line(1, 1, 2)], ["0.0", "0.1", "1.0", "1.1"], 0),
        ([line(0, 0, 2), line(1, 0, 2), line(0, 1, 2)], ["0.0", "0.1"], 0),  # a rank was killed before its commit
        ([line(1, 0, 2), line(1, 1, 2)], [], 0),  # nothing counts after a commit that is missing
        ([line(0, 0, 2), line(0, 1, 2), line(0, 1, 2)], ["0.0", "0.1"], 0),  # killed while journals were joined
        ([line(0, 0, 2), line(0, 1, 2), line(None, text="c")], ["0.0", "0.1", "c"], 0),  # resumed by one rank
        ([line(0, 0, 2), line(0, 1, 2), line(1, 2, 3), line(1, 1, 3), line(1, 0, 3)], 5, 0),  # then by three
        ([line(0, 0, 2), line(0, 1, 3)], [], 0),  # no run writes this
        ([line(0, 0, 2), line(0, 1, 2, "bad"), line(1, 0, 2), line(1, 1, 2)], [], 2),
        ([line(None, text="a"), line(None, text="bad"), line(None, text="c")], ["a"], 2),
    ],
)
def test_commits_that_have_all_parts(lines: list[dict[str, Any]], entries: list[str] | int, damaged: int) -> None:
    whole = whole_commits(lines, lambda each: bool(each["entry"] != "bad"))
    found = [each["entry"] for each in whole.lines]
    assert (len(found) if isinstance(entries, int) else found, whole.damaged) == (entries, damaged)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_ranks_write_the_same_bytes(count: int, begin: Ranks, source: Checkpoint, new: Path, tmp_path: Path) -> None:
    writers = begin(count)
    write(writers, source, list(source.tensors)[:3])
    for writer in writers:
        writer.commit("a unit")
    assert [path.name for path in journals(tmp_path / "out.partial.journal")] == [
        journal_of(Path("out.partial.journal"), rank).name for rank in range(count)
    ]
    finish(writers, source)
    assert everything(tmp_path / "out") == everything(new)
    assert beside(tmp_path) == ["out"]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("harm", ["none", "killed while joining", "a part has other bytes", "a line is cut off"])
def test_resumed_by_any_number_of_ranks(
    harm: str, count: int, begin: Ranks, source: Checkpoint, new: Path, tmp_path: Path
) -> None:
    """Three ranks make two commits, and a third one of which a rank lacks its part."""
    names, three = list(source.tensors), begin(3)
    first, second, third = names[:2], names[2:4], names[4:]
    for unit, share, ending in (("first", first, three), ("second", second, three), ("third", third, three[:2])):
        write(three, source, share)
        for writer in ending:
            writer.commit([unit, writer.rank.number])
    for writer in reversed(three):
        writer.abort(keep=True)
    place = tmp_path / "out.partial.journal"
    whole = ["first", "first", "first", "second", "second", "second"]
    if harm == "killed while joining":
        kept = journal_of(place, 1).read_bytes()
        begin(1, resume=True)[0].abort(keep=True)
        journal_of(place, 1).write_bytes(kept)
    elif harm == "a part has other bytes":
        info = source.tensors[second[1]]  # of rank 1
        with (tmp_path / "out.partial" / info.shard).open("r+b") as file:
            file.seek(info.start)
            file.write(b"\xff" * info.nbytes)
        whole = whole[:3]
    elif harm == "a line is cut off":
        content = journal_of(place, 2).read_bytes()
        journal_of(place, 2).write_bytes(content[: content.rindex(b"entry")])
        whole = whole[:3]
    writers = begin(count, resume=True)
    for writer in writers:
        assert [entry[0] for entry in writer.resumed] == whole
        assert set(writer.remaining()) == set(names) - set(names[: 2 * len(whole) // 3])
    assert writers[0].damaged == (harm == "a part has other bytes")
    write(writers, source, writers[0].remaining()[:1])
    for writer in writers:
        writer.commit(["next", writer.rank.number])
    for writer in writers:
        writer.abort(keep=True)
    again = begin(2, resume=True)
    assert [entry[0] for entry in again[0].resumed] == [*whole, *["next"] * count]
    finish(again, source)
    assert everything(tmp_path / "out") == everything(new)
    assert beside(tmp_path) == ["out"]


def test_a_rank_that_still_writes_keeps_another_run_away(
    begin: Ranks, source: Checkpoint, new: Path, tmp_path: Path
) -> None:
    """Even if the first rank, and its lock, have gone: of two machines one may have lost its power."""
    first, second = begin(2)
    first.commit("a unit")
    first.abort(keep=True)
    with pytest.raises(OutputError, match=r"^another run is writing .*out\.partial: wait for it"):
        begin(1, resume=True)
    with pytest.raises(OutputError, match=r"^another run is writing .*out\.partial: wait for it"):
        check_output(tmp_path / "out", [new], overwrite=False, resume=True)
    second.abort(keep=True)
    finish(begin(3, resume=True), source)
    assert beside(tmp_path) == ["out"]


def test_journals_of_a_run_that_is_gone(begin: Ranks, source: Checkpoint, tmp_path: Path) -> None:
    """A rank's journal without OUT.partial, or of another run, tells nothing; what is no journal is kept."""
    stray, foreign = tmp_path / "out.partial.journal.7", tmp_path / "other.partial.journal.8"
    stray.write_text(
        json.dumps({"hpa-merge journal": 4, "fingerprint": {"a": 2}}) + "\n" + json.dumps(line(0, 1, 2)) + "\n"
    )
    finish(begin(2), source)
    assert beside(tmp_path) == ["out"]
    foreign.write_text("a letter")
    with pytest.raises(OutputError, match=r"it is not a journal of hpa-merge"):
        CheckpointWriter(source, tmp_path / "other", inputs=[])
    assert foreign.read_text() == "a letter"


def test_giving_up_removes_what_all_ranks_have(begin: Ranks, tmp_path: Path) -> None:
    writers = begin(3)
    writers[1].commit("a unit")
    writers[1].abort()
    assert beside(tmp_path) == []
    for writer in writers:
        writer.abort(keep=True)


def test_a_rank_on_another_file_system(
    source: Checkpoint, new: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(beginning, "SEEN", 0.0)
    with pytest.raises(OutputError, match=r"another rank does not see it: put OUT on a file system that all machines"):
        CheckpointWriter(source, tmp_path / "out", inputs=[new], rank=Rank(1, 2))
    assert beside(tmp_path) == []


def test_a_rank_with_other_inputs(begin: Ranks, source: Checkpoint, new: Path, tmp_path: Path) -> None:
    """Or with other options, versions or threads: it would write something else."""
    (first,) = begin(1)
    with pytest.raises(OutputError, match=r"^process 3 of 4 has a 2, and the first has 1: give all the same inputs"):
        CheckpointWriter(source, tmp_path / "out", inputs=[new], fingerprint={"a": 2}, rank=Rank(2, 4))
    first.abort()
    assert beside(tmp_path) == []


def test_no_tensor_is_adopted_twice(begin: Ranks, source: Checkpoint) -> None:
    first, second = begin(2)
    name = next(iter(source.tensors))
    first.copy(name)
    second.copy(name)
    with pytest.raises(RuntimeError, match="written twice"):
        first.adopt(second.sync())
    for writer in (second, first):
        writer.abort()
