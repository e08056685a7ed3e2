"""Check that a token has the same row in OLD and in NEW: a vocabulary may grow, but its order must not change."""

import filecmp
from pathlib import Path
from typing import final

from hpa_merge.counting import counted
from hpa_merge.errors import CheckpointError
from hpa_merge.isolation import Child, Limits, Stopped

__all__ = ["VocabularyService", "check_order"]

FILE = "tokenizer.json"

SERVICE = "hpa_merge.inputs.vocabulary:VocabularyService"

READING = Limits(computing=120.0, waiting=600.0)
"""For reading two vocabularies; the largest take seconds."""

MEMORY = 2**33
"""Bytes for both: 8 GiB; the largest take one GiB."""


@final
class VocabularyService:
    """What runs in the child, where a stranger's ``tokenizer.json`` is read."""

    def moved(self, old: Path, new: Path) -> tuple[list[tuple[int, str, int]], bytes]:
        """The tokens of both folders whose number differs in NEW: OLD's number, the token, NEW's number."""
        from tokenizers import Tokenizer

        try:
            before, after = (Tokenizer.from_file(str(folder / FILE)).get_vocab() for folder in (old, new))
        except MemoryError:
            raise
        except BaseException:  # tokenizers raises a bare Exception for what it cannot parse, and panics
            return [], b""
        return sorted((n, token, after[token]) for token, n in before.items() if after.get(token, n) != n), b""


def check_order(old: Path, new: Path) -> None:
    """Check that every token of both folders has the same number in both.

    Nothing is checked without a readable ``tokenizer.json``; encoding the samples then raises an error. A reserved
    token that got another text is not a token of both.

    Raises:
        CheckpointError: a number differs, or reading the files takes too much time or memory.
    """
    try:
        if filecmp.cmp(old / FILE, new / FILE, shallow=False):
            return
    except OSError:
        return
    child = Child(SERVICE, MEMORY)
    try:
        moved, _ = child.call("moved", old, new, limits=READING)
    except Stopped as stopped:
        raise CheckpointError(
            f"the {FILE} of OLD or NEW cannot be read ({stopped}): fetch both again, or set head and embeddings to new."
        ) from stopped
    finally:
        child.close()
    for number, token, now in moved[:1]:
        raise CheckpointError(
            f"the token {token!r} has the number {number} in OLD's {FILE} and {now} in NEW's, and "
            f"{counted(len(moved), 'token', 'have')} another number in all, so the rows of the two "
            "vocabularies do not match: keep OLD's order "
            "when adding tokens, or set head and embeddings to new."
        )
