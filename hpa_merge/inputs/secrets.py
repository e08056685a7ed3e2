"""Hide secrets in addresses, headers and texts before they are shown; and read the key for endpoints.

The address of a server may hold a password (``http://user:password@host``) or a token (``?signature=…``). It is only
shown and recorded through :func:`shown`. Libraries quote their arguments, so their texts are shown through
:func:`without_secrets`.
"""

import base64
import json
import os
import re
from collections.abc import Collection, Sequence
from urllib.parse import quote, unquote

from hpa_merge.errors import EvaluationError

__all__ = ["KEY", "credentials", "read_address", "read_key", "recorded", "secrets_of", "shown", "without_secrets"]

KEY = "OPENAI_API_KEY"
"""The environment variable with the key, for servers that need one."""

SECRETS = (
    *(KEY, "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN"),
    *("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "DATABRICKS_TOKEN", "TRACKIO_WRITE_TOKEN"),
)
"""Environment variables whose values are never shown."""

SHORTEST = 4
"""The fewest letters of a secret; a shorter value would be found everywhere."""

HIDDEN = "***"

LONGEST = 2**20
"""The most characters of a text that are shown."""

HOST = re.compile(r"[\w.-]*(:\d*)?|\[[0-9A-Fa-f:.%]+\](:\d*)?")
"""The part between ``//`` and the path of an address without a user."""

ADDRESS = re.compile(r"""\b([A-Za-z][A-Za-z0-9+.-]{0,30}:/|https?:)/([^\s'"<>`,;)]+)""")
"""An address in a sentence, also with one slash, as a path made from it has."""

TOKEN = re.compile(
    r"""\b(?:(?<=(?i:Bearer ))[^\s'",;]+|(?<=(?i:Basic ))[^\s'",;]+|hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,})"""
)
"""A token, recognised by its form."""


def shown(address: str) -> str:
    """An address without user, password, query and fragment.

    If a part of it could belong to a password, which may hold any sign, only the beginning is kept.
    """
    scheme, mark, rest = address.partition("://")
    if not mark:
        scheme, rest = "", address
    host, signs, path = re.fullmatch(r"([^/?#]*)([/?#]?)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    host = host.rpartition("@")[2]
    if not HOST.fullmatch(host) or "@" in path:
        return f"{scheme}{mark}{HIDDEN}"
    path = re.split("[?#]", path, maxsplit=1)[0] if signs == "/" else ""
    return f"{scheme}{mark}{host}{'/' if signs == '/' else ''}{path}"


def read_address(address: str) -> str:
    """The address of a server without user and password.

    Raises:
        EvaluationError: it is not an address, or has a query, although tokens belong in the key.
    """
    found = shown(address)
    if not re.match(r"https?://[^/]", found) or found.endswith(HIDDEN):
        raise EvaluationError(
            f"the endpoint {found} is not an address: give what comes before /chat/completions, "
            "as http://localhost:8000/v1."
        )
    if re.search("[?#]", address.rpartition("@")[2]):
        raise EvaluationError(
            f"the endpoint {found} has a query: give what comes before /chat/completions, and a key as {KEY}."
        )
    return found


def credentials(address: str) -> tuple[str, str] | None:
    """User and password of an address; None if it has none."""
    authority = re.split("[/?#]", address.partition("://")[2], maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    name, _, password = user.partition(":")
    return (unquote(name), unquote(password)) if at else None


def read_key() -> str:
    """The key for endpoints, without white space around it, such as a line end from a file.

    Raises:
        EvaluationError: it holds a character that a header must not have.
    """
    key = os.environ.get(KEY, "").strip()
    wrong = next((number for number, sign in enumerate(key, start=1) if not "!" <= sign <= "~"), None)
    if wrong is not None:
        raise EvaluationError(
            f"{KEY} has a character that no key has (number {wrong} of {len(key)}: a blank, a line end, or not "
            "ASCII): set it to the key alone."
        )
    return key


def recorded(words: Sequence[str]) -> list[str]:
    """The words of a command line as a report may record them."""
    whole = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)  # a password may hold any sign
    return [whole.sub(lambda found: shown(found[0]), word) for word in words]


def secrets_of(address: str) -> frozenset[str]:
    """The user and the password of an address, which must not be shown, in every form that a server may repeat."""
    if (found := credentials(address)) is None:
        return frozenset()
    user, password = found
    whole = f"{user}:{password}"
    secrets = {password or user, whole, whole.rstrip(":")}
    coded = {base64.b64encode(secret.encode()).decode("ascii") for secret in (*secrets, f"{whole}:")}
    return frozenset({*secrets, *coded, *(form.rstrip("=") for form in coded)})


def without_secrets(text: str, secrets: Collection[str] = ()) -> str:
    """The text of a library or a server without keys, and with addresses as :func:`shown`.

    Args:
        secrets: further texts that must not be shown.
    """
    text = ADDRESS.sub(lambda found: shown(f"{found[1].rstrip('/')}//{found[2]}"), text[:LONGEST])
    values = {*secrets, *(os.environ.get(name, "") for name in SECRETS)}
    forms = {form for value in values for each in (value, value.strip()) for form in _forms(each)}
    for secret in sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return TOKEN.sub(HIDDEN, text)


def _forms(secret: str) -> set[str]:
    """A secret as it is, as Python and JSON write it, and as an address quotes it."""
    return {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote(secret, safe="")}
