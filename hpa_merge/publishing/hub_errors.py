"""What goes wrong on the way to the Hub, in sentences; never with a library's text, which may hold a signed address."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    BadRequestError,
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx

from hpa_merge.errors import HPAError, PublishError
from hpa_merge.inputs.addresses import shown, without_secrets
from hpa_merge.inputs.hub_errors import TOKEN

__all__ = ["AGAIN", "OFFLINE", "is_dropped", "telling"]

AGAIN = "run the same command again, which sends only what has not arrived"

OFFLINE = "HF_HUB_OFFLINE keeps the Hub out of reach: unset it to publish."


@contextmanager
def telling(repo: str) -> Iterator[None]:
    """Whatever huggingface_hub raises in the block, as a :class:`PublishError` that names the repository.

    Raises:
        PublishError: it failed.
    """
    try:
        yield
    except HPAError:
        raise
    except Exception as error:  # its transports raise what comes
        raise PublishError(f"{repo}{_reason(_root(error), repo)}") from error


def is_dropped(error: BaseException) -> bool:
    """Whether a connection broke off, or the Hub failed for the moment: the same request may succeed."""
    root = _root(error)
    return isinstance(root, httpx.TransportError) or (
        isinstance(root, HfHubHTTPError) and root.response.status_code in (502, 503, 504)
    )


def _root(error: BaseException) -> BaseException:
    """What an upload in a thread failed of: huggingface_hub wraps it."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException, repo: str) -> str:
    """The end of a sentence that begins with the repository's name: what is wrong, and what to do."""
    if isinstance(error, LocalTokenNotFoundError):
        return ": you are not logged in: run 'hf auth login', or set HF_TOKEN."
    if isinstance(error, OfflineModeIsEnabled):
        return f": {OFFLINE}"
    if isinstance(error, HFValidationError):
        return " is no name that the Hub allows: give the repository as org/name."
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repo)
    if isinstance(error, httpx.ConnectError):
        return f": the Hub at {shown(constants.ENDPOINT)} cannot be reached: check the network and {AGAIN}."
    if isinstance(error, httpx.HTTPError):
        return f": the connection to the Hub at {shown(constants.ENDPOINT)} broke off: check the network and {AGAIN}."
    if isinstance(error, UnicodeEncodeError) and error.encoding == "ascii":  # of a header
        return f": {TOKEN}"
    if isinstance(error, OSError) and error.errno is not None:
        return (
            f": OUT cannot be read ({error.strerror}): check that nothing changes it while it is uploaded, and {AGAIN}."
        )
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        why = without_secrets(" ".join(str(error).split()[4:])) or "no reason given"
        return f": the Hub does not take the metadata of README.md ({why}): fix the top of that file and {AGAIN}."
    return f": the upload failed ({type(error).__name__}): {AGAIN}."


def _refusal(error: HfHubHTTPError, repo: str) -> str:
    """As :func:`_reason`, of an answer of the Hub."""
    owner, status = repo.partition("/")[0], error.response.status_code
    if not str(error.response.url).startswith(constants.ENDPOINT):
        return f": the Hub's storage refuses a file (HTTP {status}): {AGAIN}."
    said = f", {without_secrets(error.server_message)}" if error.server_message else ""
    if isinstance(error, GatedRepoError):
        page = f"{shown(constants.ENDPOINT)}/{repo}"
        return f" is gated, and you are not among those who may use it: ask at {page} for access."
    if isinstance(error, DisabledRepoError):
        return f" has been disabled on the Hub: see {shown(constants.ENDPOINT)}/{repo}."
    if status == 401:
        return (
            ": the Hub refuses your token (HTTP 401): log in again with 'hf auth login', or set HF_TOKEN to one that "
            "is valid."
        )
    if status == 403:
        return (
            f": your token may not write there (HTTP 403): use one with write access to {owner}'s repositories, or "
            "another name."
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return ": the Hub has no such repository, or you may not see it: check the name and the token's access."
    if status == 409:
        return f": the Hub says that it is there already, or is being changed{said}: {AGAIN}."
    if status == 412:
        return f" was changed by somebody else meanwhile: look at it, and {AGAIN}."
    if status in (402, 413, 507):
        return (
            f": the Hub does not take so much (HTTP {status}{said}): see the storage limits of {owner}, or remove what "
            "is no longer needed there."
        )
    if status == 429:
        return f": the Hub says that there were too many requests (HTTP 429): wait some minutes and {AGAIN}."
    if isinstance(error, BadRequestError):
        return f": the Hub does not take it (HTTP 400{said}): check the names of the repository and the branch."
    return f": the Hub fails (HTTP {status}): {AGAIN}."
