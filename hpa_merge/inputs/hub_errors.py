"""What fails on the way from the Hub, in sentences; never with a library's text, which may hold a signed address."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from hpa_merge.errors import CalibrationError, CheckpointError, HPAError
from hpa_merge.inputs.addresses import shown

__all__ = ["TOKEN", "What", "telling", "unreachable"]

What = Literal["model", "data set"]
"""What is fetched."""

TOKEN = "the token in HF_TOKEN, or that of 'hf auth login', holds a sign that is not ASCII: set it to the token alone."
"""What is wrong where a request cannot even be written."""


@contextmanager
def telling(name: str, repo: str, revision: str | None, what: What = "model") -> Iterator[None]:
    """Whatever huggingface_hub raises, in a sentence that begins with ``name``.

    Raises:
        CheckpointError, CalibrationError: a model, or a data set, cannot be fetched.
    """
    try:
        yield
    except HPAError:
        raise
    except Exception as error:  # its transports raise what comes
        kind = CheckpointError if what == "model" else CalibrationError
        raise kind(f"{name}{_reason(error, repo, revision, what)}") from error


def _reason(error: Exception, repo: str, revision: str | None, what: What) -> str:
    """The end of a sentence that begins with a name: what is wrong, and what to do."""
    page = f"{shown(constants.ENDPOINT)}/{'' if what == 'model' else 'datasets/'}{repo}"
    here = "is no folder here" if what == "model" else "is no file or folder here"
    if isinstance(error, GatedRepoError):
        return (
            f" is gated, and you are not among those who may read it: ask for access at {page}, "
            "then log in with 'hf auth login'."
        )
    if isinstance(error, RevisionNotFoundError):
        return f": the Hub has no revision {revision or 'main'} of it: give a branch, a tag or a commit of {page}."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f" {here}, and no {what} on the Hub that you may see: check the name, or, if it is private, "
            "log in with 'hf auth login'."
        )
    if isinstance(error, DisabledRepoError):
        return f" has been disabled on the Hub: see {page}."
    if isinstance(error, HFValidationError):
        place = "folder" if what == "model" else "path"
        return f" {here}, and no name that the Hub allows: give a {place}, or a {what} as org/name."
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return (
            f": the Hub does not let you read it (HTTP {error.response.status_code}): log in with 'hf auth login', "
            "with a token that may."
        )
    if isinstance(error, HfHubHTTPError):
        return f": the Hub fails (HTTP {error.response.status_code}): try again later; what has arrived is kept."
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        return _reason(error.__cause__, repo, revision, what)
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f" {here} and not in the cache, and {unreachable()}: check the name, or run it once with the Hub in reach."
        )
    if isinstance(error, httpx.HTTPError | OfflineModeIsEnabled):
        return f": {unreachable()}: check the network and run the same command again; what has arrived is kept."
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":  # of a header
        return f": {TOKEN}"
    if isinstance(error, FileMetadataError):
        return f": what answers at {shown(constants.ENDPOINT)} is no Hub: check HF_ENDPOINT and the network's proxy."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f": the disk of the cache {constants.HF_HUB_CACHE} is full: free some space, or set HF_HOME to a folder on "
            "another disk."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f": the cache {constants.HF_HUB_CACHE} cannot be used ({error.strerror}): check its permissions, or set "
            "HF_HOME to another folder."
        )
    return f" cannot be fetched ({type(error).__name__}): run the same command again; what has arrived is kept."


def unreachable() -> str:
    """Why the Hub is not in reach."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE keeps the Hub out of reach"
    return f"the Hub at {shown(constants.ENDPOINT)} cannot be reached"
