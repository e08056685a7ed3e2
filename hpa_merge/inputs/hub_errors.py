"""Errors of the Hub as sentences; never with a library's text, which may hold a signed address."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from huggingface_hub import constants
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from hpa_merge.errors import CalibrationError, CheckpointError, HPAError, PublishError
from hpa_merge.inputs.secrets import shown, without_secrets

__all__ = ["AGAIN", "OFFLINE", "What", "is_dropped", "publishing", "reading", "unreachable"]

AGAIN = "run the same command again, which sends only what has not arrived"

KEPT = "run the same command again; what has arrived is kept"

What = Literal["model", "data set"]
"""What is read."""

OFFLINE = "HF_HUB_OFFLINE keeps the Hub out of reach"


@contextmanager
def reading(subject: str, repo: str, revision: str | None, what: What = "model") -> Iterator[None]:
    """Turn the errors of the block into sentences about ``subject``, which is read from the Hub.

    Raises:
        CheckpointError, CalibrationError: a model, or a data set, cannot be read.
    """
    try:
        yield
    except HPAError:
        raise
    except Exception as error:  # its transports raise anything
        kind = CheckpointError if what == "model" else CalibrationError
        raise kind(f"{subject}{_of_reading(error, repo, revision, what)}") from error


@contextmanager
def publishing(repo: str) -> Iterator[None]:
    """Turn the errors of the block into sentences about ``repo``, which is written to.

    Raises:
        PublishError: it failed.
    """
    try:
        yield
    except HPAError:
        raise
    except Exception as error:
        raise PublishError(f"{repo}{_of_publishing(_root(error), repo)}") from error


def is_dropped(error: BaseException) -> bool:
    """Whether the connection broke or the Hub failed for a moment, so that the same request may succeed."""
    root = _root(error)
    return isinstance(root, httpx.TransportError) or (
        isinstance(root, HfHubHTTPError) and root.response.status_code in (502, 503, 504)
    )


def unreachable() -> str:
    """Why the Hub cannot be reached."""
    return OFFLINE if constants.HF_HUB_OFFLINE else f"the Hub at {shown(constants.ENDPOINT)} cannot be reached"


def _root(error: BaseException) -> BaseException:
    """The error of an upload in a thread, which huggingface_hub wraps."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _of_both(error: BaseException, page: str, verb: str) -> str | None:
    """The end of a sentence for what reading and publishing have in common; None for another error."""
    if isinstance(error, GatedRepoError):
        return f" is gated, and you may not {verb} it: ask for access at {page}, then log in with 'hf auth login'."
    if isinstance(error, DisabledRepoError):
        return f" has been disabled on the Hub: see {page}."
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":  # of a header
        return ": the token in HF_TOKEN, or that of 'hf auth login', is not ASCII: set it to the token alone."
    return None


def _of_reading(error: Exception, repo: str, revision: str | None, what: What) -> str:
    """The end of a sentence: what is wrong, and what to do."""
    page = f"{shown(constants.ENDPOINT)}/{'' if what == 'model' else 'datasets/'}{repo}"
    place = "folder" if what == "model" else "file or folder"
    if (common := _of_both(error, page, "read")) is not None:
        return common
    cache = constants.HF_HUB_CACHE
    if isinstance(error, RevisionNotFoundError):
        return f": the Hub has no revision {revision or 'main'} of it: give a branch, a tag or a commit of {page}."
    if isinstance(error, RepositoryNotFoundError):
        return (
            f" is no {place} here, and no {what} on the Hub that you may see: check the name, or, if it is private, "
            "log in with 'hf auth login'."
        )
    if isinstance(error, HFValidationError):
        return f" is no {place} here, and no name that the Hub allows: give a {place}, or a {what} as org/name."
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return (
                f": the Hub does not let you read it (HTTP {status}): log in with 'hf auth login', with a token that "
                "may."
            )
        return f": the Hub fails (HTTP {status}): try again later; what has arrived is kept."
    if isinstance(error, LocalEntryNotFoundError):
        if isinstance(error.__cause__, HfHubHTTPError):
            return _of_reading(error.__cause__, repo, revision, what)
        return (
            f" is no {place} here and not in the cache, and {unreachable()}: check the name, or run it once with "
            "access to the Hub."
        )
    if isinstance(error, httpx.HTTPError | OfflineModeIsEnabled):
        return f": {unreachable()}: check the network and {KEPT}."
    if isinstance(error, FileMetadataError):
        return f": what answers at {shown(constants.ENDPOINT)} is no Hub: check HF_ENDPOINT and the network's proxy."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f": the disk of the cache {cache} is full: free some space, or set HF_HOME to a folder on another disk."
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f": the cache {cache} cannot be used ({error.strerror}): check its permissions, or set HF_HOME to another "
            "folder."
        )
    return f" cannot be fetched ({type(error).__name__}): {KEPT}."


def _of_publishing(error: BaseException, repo: str) -> str:
    """As :func:`_of_reading`."""
    endpoint = shown(constants.ENDPOINT)
    if (common := _of_both(error, f"{endpoint}/{repo}", "use")) is not None:
        return common
    if isinstance(error, LocalTokenNotFoundError):
        return ": you are not logged in: run 'hf auth login', or set HF_TOKEN."
    if isinstance(error, OfflineModeIsEnabled):
        return f": {OFFLINE}: unset it to publish."
    if isinstance(error, HFValidationError):
        return " is no name that the Hub allows: give the repository as org/name."
    if isinstance(error, HfHubHTTPError):
        return _of_answer(error, repo)
    if isinstance(error, httpx.ConnectError):
        return f": the Hub at {endpoint} cannot be reached: check the network and {AGAIN}."
    if isinstance(error, httpx.HTTPError):
        return f": the connection to the Hub at {endpoint} broke: check the network and {AGAIN}."
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f": OUT cannot be read ({error.strerror}): check that nothing changes it while it is uploaded, and {AGAIN}."
        )
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        why = without_secrets(" ".join(str(error).split()[4:])) or "no reason given"
        return f": the Hub does not take the metadata of README.md ({why}): fix the top of that file and {AGAIN}."
    return f": the upload failed ({type(error).__name__}): {AGAIN}."


def _of_answer(error: HfHubHTTPError, repo: str) -> str:
    """As :func:`_of_publishing`, for an answer of the Hub."""
    owner, status = repo.partition("/")[0], error.response.status_code
    if not str(error.response.url).startswith(constants.ENDPOINT):
        return f": the Hub's storage refuses a file (HTTP {status}): {AGAIN}."
    said = f", {without_secrets(error.server_message)}" if error.server_message else ""
    if isinstance(error, RepositoryNotFoundError) and status not in (401, 403):
        status = 404
    sentences = {
        400: f"does not take it (HTTP 400{said}): check the names of the repository and the branch.",
        401: "refuses your token (HTTP 401): log in again with 'hf auth login', or set HF_TOKEN to a valid one.",
        403: f"does not let your token write there (HTTP 403): use one with write access to {owner}, or another name.",
        404: "has no such repository, or you may not see it: check the name and the token's access.",
        409: f"says that it exists already, or is being changed{said}: {AGAIN}.",
        412: f"says that somebody else changed it meanwhile: look at it, and {AGAIN}.",
        429: f"says that there were too many requests (HTTP 429): wait some minutes and {AGAIN}.",
        **dict.fromkeys(
            (402, 413, 507),
            f"does not take so much (HTTP {status}{said}): see the storage limits of {owner}, or remove what is no "
            "longer needed there.",
        ),
    }
    if isinstance(error, BadRequestError):
        status = 400
    return f": the Hub {sentences.get(status, f'fails (HTTP {status}): {AGAIN}.')}"
