"""What can be refused of test files and of prompts before torch is imported."""

from pathlib import Path

from hpa_merge.engine.early import is_quick
from hpa_merge.evaluation.prompts import PromptFile, Purpose
from hpa_merge.inputs.names import is_data_set
from hpa_merge.records import ReadingOptions, local_source

__all__ = ["refuse_prompts"]


def refuse_prompts(file: str | Path, purpose: Purpose, options: ReadingOptions | None = None) -> None:
    """Check that a file of prompts exists and, if it is small, that its records are prompts.

    Raises:
        InputError: it does not, or they are not.
    """
    if is_data_set(file) or Path(file).is_dir():
        return
    if is_quick(Path(file)):
        PromptFile(local_source(file, "test"), purpose, options=options)
