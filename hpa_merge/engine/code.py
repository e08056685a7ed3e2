"""The code that the checkpoints of a merge bring: its records, and what the user should know of it."""

from collections.abc import Iterable, Iterator

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.custom_code.comparing import differing
from hpa_merge.custom_code.finding import find_references
from hpa_merge.errors import CheckpointError
from hpa_merge.report.records import CodeRecord
from hpa_merge.report.words import shortened

__all__ = ["check_code", "code_notes", "code_records"]


def check_code(old: Checkpoint, new: Checkpoint) -> None:
    """Check that OLD's model and NEW's have the same code, apart from comments, docstrings and layout.

    Raises:
        CheckpointError: it differs, so that they are not one model before and after tuning.
    """
    if files := differing(old.code, new.code, of_the_model=True):
        raise CheckpointError(
            f"the code of OLD's model and that of NEW's differ in {shortened(files)}, and OUT can have only one: put "
            "the right files and their auto_map into both folders, or leave out --trust-remote-code if the class is "
            "one of transformers too."
        )


def code_notes(old: Checkpoint, new: Checkpoint) -> Iterator[str]:
    """What the user should know of the code, a sentence each."""
    idle = [each.role for each in (old, new) if each.code is None and find_references(each.folder)]
    if idle:
        yield (
            f"{' and '.join(idle)} {'bring' if len(idle) > 1 else 'brings'} code, which was not run: transformers' own "
            "classes were used. With --trust-remote-code the code is run."
        )
    if files := differing(old.code, new.code, of_the_model=False):
        yield (
            f"The code of OLD's tokenizer or processor and that of NEW's differ in {shortened(files)}: each encodes "
            "the samples of its model, and OUT gets NEW's."
        )
    for part in new.code.parts.values() if new.code is not None else ():
        if part.repository and part.files:
            yield (
                f"NEW's code lies in {part.repository} on the Hub, and so does OUT's: this merge ran the commit "
                f"{part.commit}, and from_pretrained takes the newest one unless it is given code_revision."
            )


def code_records(checkpoints: Iterable[Checkpoint]) -> tuple[CodeRecord, ...]:
    """What code was run, by checkpoint and place."""
    return tuple(
        CodeRecord(
            checkpoint.role,
            part.repository,
            part.commit,
            part.digest,
            tuple(part.files),
            tuple(sorted({each.auto for each in checkpoint.code.references if each.repository == part.repository})),
        )
        for checkpoint in checkpoints
        if checkpoint.code is not None
        for part in checkpoint.code.parts.values()
        if part.files
    )
