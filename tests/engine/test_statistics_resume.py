"""``--stats`` and ``--resume``: the same OUT and the same file, and no curvature factored twice."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cases import TinyCase, content
from statistics_runs import described, in_text, interrupt, raising, run, started_roles  # noqa: F401 - a fixture

from hpa_merge.core import Curvature
from hpa_merge.errors import OutputError

pytestmark = pytest.mark.gate

BOTH = {"safety": "computed", "task": "computed"}
Tiny = Callable[..., TinyCase]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpt2", ()),
        pytest.param("llava", (), marks=pytest.mark.gate),
        ("llava", ("safety",)),
        pytest.param("llava", ("safety", "task"), marks=pytest.mark.gate),
    ],
    ids=str,
)
def test_interrupted_after_every_unit(
    name: str, text: tuple[str, ...], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    factored, real = [0], Curvature.inverse_diagonal

    def inverse_diagonal(self: Curvature, damping: float) -> torch.Tensor:
        factored[0] += 1
        return real(self, damping)

    monkeypatch.setattr(Curvature, "inverse_diagonal", inverse_diagonal)
    case = in_text(tiny(name), tmp_path, *text)
    report = run(case, tmp_path / "whole", tmp_path / "statistics")
    whole, expected, total = content(tmp_path / "whole"), (tmp_path / "statistics").read_bytes(), factored[0]
    units = len({record.unit for record in report.linears})
    for done in range(1, units + 1):
        factored[0] = 0
        out, stats = tmp_path / str(done) / "out", tmp_path / str(done) / "stats"
        out.parent.mkdir()
        interrupt(case, out, stats, done)
        assert not stats.exists()
        started.clear()
        run(case, out, stats, resume=True)
        assert factored[0] == total  # none twice
        assert started == (["OLD", "NEW"] if done < units else [])
        assert content(out) == whole
        assert stats.read_bytes() == expected
        assert sorted(path.name for path in out.parent.iterdir()) == ["out", "stats"]


def test_interrupted_after_the_file_was_written(tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    case, out, stats = tiny("llama"), tmp_path / "out", tmp_path / "stats"
    run(case, tmp_path / "whole", tmp_path / "statistics")

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "copying the rest":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(case, out, stats, on_progress=on_progress)
    assert stats.read_bytes() == (tmp_path / "statistics").read_bytes()
    started.clear()
    report = run(case, out, stats, resume=True)
    assert started == []
    assert report.run.statistics == {**BOTH, "file": str(stats)}
    assert content(out) == content(tmp_path / "whole")


def test_a_run_on_a_file_is_not_resumed_with_other_statistics(tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    case, out, stats = tiny("llama"), tmp_path / "out", tmp_path / "stats"
    run(case, tmp_path / "whole", stats)
    digest = described(stats)["safety"]["digest"]
    interrupt(case, out, stats, 2)
    sentence = f"^{out}.partial was begun with safety statistics {digest}, and now it is computed: resume with the same"
    with pytest.raises(OutputError, match=sentence):
        run(case, out, resume=True)
    started.clear()
    run(case, out, stats, resume=True)
    assert started == []
    assert content(out) == content(tmp_path / "whole")


@pytest.mark.parametrize("there", [False, True])
def test_a_run_that_computes_goes_on_computing(there: bool, tiny: Tiny, tmp_path: Path, started: list[str]) -> None:
    """Begun without a file and resumed with one, which another run may have made meanwhile."""
    case, out, stats = tiny("llama"), tmp_path / "out", tmp_path / "stats"
    run(case, tmp_path / "whole", tmp_path / "statistics")
    interrupt(case, out, None, 2)
    if there:
        run(case, tmp_path / "other", stats, p_max=20.0)
    started.clear()
    run(case, out, stats, resume=True)
    assert started == ["OLD", "NEW"]
    assert content(out) == content(tmp_path / "whole")
    assert stats.read_bytes() == (tmp_path / "statistics").read_bytes()


def test_a_full_disk_leaves_what_can_be_resumed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    case, out, stats = tiny("gpt2"), tmp_path / "out", tmp_path / "stats"
    with monkeypatch.context() as patch:
        patch.setattr(
            "hpa_merge.engine.statistics_file.write_whole", raising(OSError(errno.ENOSPC, "No space left on device"))
        )
        with pytest.raises(OutputError) as caught:
            run(case, out, stats)
    assert str(caught.value) == (
        f"the statistics {stats} cannot be written (No space left on device): check the disk and the permissions; "
        "the same command with --resume continues."
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial", "out.partial.journal"]
    started.clear()
    run(case, out, stats, resume=True)
    assert started == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "stats"]
