"""The repository on the Hub that a model is published to."""

from dataclasses import dataclass
from typing import final

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo

from hpa_merge.errors import ConfigError, PublishError
from hpa_merge.files.names import ACCOUNT
from hpa_merge.inputs.hub_errors import OFFLINE, publishing
from hpa_merge.inputs.names import MODEL

__all__ = ["Destination", "There", "check_destination", "check_login", "create"]


@final
@dataclass(frozen=True)
class Destination:
    """Where to publish.

    Attributes:
        repo: ``org/name``.
        private: create it as a private repository.
        branch: created if it does not exist; None: the main one.
        pull_request: open a pull request instead of changing the branch.

    Raises:
        ConfigError: the name is invalid, or the options contradict each other.
    """

    repo: str
    private: bool = False
    branch: str | None = None
    pull_request: bool = False

    def __post_init__(self) -> None:
        if not MODEL.fullmatch(self.repo) or "@" in self.repo:
            raise ConfigError(f"{self.repo!r} is not a name on the Hub: give the repository as org/name.")
        if self.repo.startswith(f"{ACCOUNT}/"):
            raise ConfigError(
                f"{ACCOUNT} in {self.repo} stands for your account or your organisation on the Hub: give its name."
            )
        if self.pull_request and self.branch is not None:
            raise ConfigError(
                "the Hub opens pull requests on the main branch only: leave out the branch or the pull request."
            )
        if self.branch is not None and (not self.branch or any(c.isspace() for c in self.branch)):
            raise ConfigError(f"{self.branch!r} is not the name of a branch: give one without blanks.")


@final
@dataclass(frozen=True)
class There:
    """The repository at the branch, None if it does not exist; and what has to be created."""

    info: ModelInfo | None
    creates: tuple[str, ...]


def check_login(where: Destination) -> None:
    """Check that there is a token and that the Hub may be reached.

    Raises:
        PublishError: there is none, or it may not.
    """
    if constants.HF_HUB_OFFLINE:
        raise PublishError(f"{where.repo} cannot be uploaded: {OFFLINE}: unset it to publish.")
    if get_token() is None:
        raise PublishError(f"{where.repo} cannot be uploaded without a token: run 'hf auth login', or set HF_TOKEN.")


def check_destination(where: Destination) -> There:
    """Check that one may publish there, as far as that is possible without changing anything.

    Raises:
        PublishError: there is no valid token; the repository is public and ``private`` is set; the Hub cannot be
            reached.
    """
    check_login(where)
    with publishing(where.repo):
        try:
            info, creates = HfApi().model_info(where.repo, revision=where.branch), list[str]()
        except RevisionNotFoundError:
            info, creates = HfApi().model_info(where.repo), [f"the branch {where.branch}"]
        except RepositoryNotFoundError as error:
            if error.response.status_code != 404:  # with a valid token it would be
                raise
            kind = "private repository" if where.private else "repository"
            return There(None, (f"the {kind} {where.repo}", *([f"the branch {where.branch}"] if where.branch else [])))
    if where.private and not info.private:
        raise PublishError(
            f"{where.repo} is public, and uploading to it would not change that: make it private in its settings on "
            "the Hub, choose another name, or leave out --private."
        )
    return There(info, tuple(creates))


def create(where: Destination, there: There) -> None:
    """Create the repository and the branch if they do not exist.

    Raises:
        Exception: as huggingface_hub raises it.
    """
    api = HfApi()
    if there.info is None:
        api.create_repo(where.repo, private=True if where.private else None, repo_type="model")
    if where.branch is not None and there.creates:
        api.create_branch(where.repo, branch=where.branch, exist_ok=True)
