"""Whether a token has the same row in OLD and in NEW: a vocabulary may grow, and not be put into another order."""

from pathlib import Path

from tokenizers import Tokenizer

from hpa_merge.errors import CheckpointError

__all__ = ["check_order"]

FILE = "tokenizer.json"


def check_order(old: Path, new: Path) -> None:
    """See that every token that both tokenizers have has the same number in both.

    Folders without a ``tokenizer.json`` that can be read say nothing of it; the samples need a tokenizer and will say
    so. A reserved token that got another text is no token of both.

    Raises:
        CheckpointError: one has another number.
    """
    try:
        if (old / FILE).read_bytes() == (new / FILE).read_bytes():
            return
        before, after = (Tokenizer.from_file(str(folder / FILE)).get_vocab() for folder in (old, new))
    except Exception:  # tokenizers raises a bare one for what it cannot parse
        return
    moved = sorted((number, token) for token, number in before.items() if after.get(token, number) != number)
    for number, token in moved[:1]:
        raise CheckpointError(
            f"the token {token!r} has the number {number} in OLD's {FILE} and {after[token]} in NEW's, as {len(moved)} "
            "tokens have another, so the rows of the two vocabularies do not belong together: keep OLD's order when "
            "tokens are added, or set head and embeddings to new."
        )
