"""Ranks that were started for different merges are refused."""

from pathlib import Path

from ranks import on_ranks

from hpa_merge.engine.same_run import check_same
from hpa_merge.errors import ConfigError
from hpa_merge.ranks import Group


def test_what_differs_is_named(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        runs = {"content of NEW": "1a2b", "threads": 4}
        check_same(Group.current(), runs)
        check_same(Group.current(), runs | ({"threads": 1} if rank == 2 else {}))

    sentence = (
        "process 3 of 3 has threads 1, and process 1 has 4: start all with the same files, options, versions and "
        "number of threads (OMP_NUM_THREADS)."
    )
    for found in on_ranks(3, work, tmp_path):
        assert (type(found), str(found)) == (ConfigError, sentence)


def test_one_rank_agrees_with_itself() -> None:
    check_same(Group.alone(), {"threads": 4})
