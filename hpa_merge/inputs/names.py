"""What is a name on the Hub, and what is a path here: of models and of data sets. Imports no huggingface_hub."""

import re
from pathlib import Path

from hpa_merge.records.containers.source import split_path

__all__ = ["DATA_SET", "MODEL", "READ", "is_data_set", "is_remote"]

MODEL = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]*\w)(?::(?P<inner>\w[\w.-]*(?:/\w[\w.-]*)*))?(?:@(?P<revision>[^\s@]+))?",
    re.ASCII,
)
"""``org/name[:folder][@revision]``."""

DATA_SET = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[\w.-]*\w)(?::(?P<first>[\w.-]+))?(?::(?P<second>[\w.-]+))?(?:@(?P<revision>[^\s@]+))?",
    re.ASCII,
)
"""``org/name[:config][:split][@revision]``."""

READ = (".parquet", ".arrow", ".feather", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".gz")
"""How the names of files end that are read; a name on the Hub does not end so."""


def is_remote(given: str | Path) -> bool:
    """Whether it is a model's name on the Hub: a string of that form, and not the path of a local folder."""
    return isinstance(given, str) and MODEL.fullmatch(given) is not None and not Path(given).exists()


def is_data_set(given: str | Path) -> bool:
    """Whether it is a data set's name on the Hub: it has that form, and there is no such path."""
    if DATA_SET.fullmatch(str(given)) is None or str(given).lower().endswith(READ):
        return False
    return not split_path(given)[0].exists()
