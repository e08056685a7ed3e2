"""Runs of trackio: a run with its configuration, metrics and artifacts, and another of its group for each child."""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from huggingface_hub import get_token
from huggingface_hub.utils import httpx

if TYPE_CHECKING:
    from hpa_merge.tracking.content import Tracked

__all__ = ["check", "write"]

OTHER = re.compile(r"[^A-Za-z0-9._-]+")
"""What the name of an artifact must not have."""

SECONDS = 20.0
"""How long a server is waited for."""


def check(name: str) -> None:
    """Check that trackio is installed, and that the server or the account that the environment names is there.

    Raises:
        ImportError: it is not installed.
        Exception: the server does not answer, or there is no token for a Space.
    """
    import trackio  # noqa: F401

    if os.environ.get("TRACKIO_SPACE_ID"):
        if get_token() is None:
            raise RuntimeError("TRACKIO_SPACE_ID names a Space, and there is no token: run hf auth login")
    elif address := os.environ.get("TRACKIO_SERVER_URL"):
        parts = urlsplit(address)
        httpx.get(f"{parts.scheme}://{parts.netloc}{parts.path}", timeout=SECONDS)


def write(run: "Tracked", name: str) -> str:
    """Write a run and its children to the project ``name``, which is made if it is missing; returns where it is."""
    written = _write(run, name, run.name, run.name)
    for child in run.children:
        _write(child, name, f"{written} {child.name}", written)
    return f"run {written} of project {name}"


def _write(run: "Tracked", project: str, name: str, group: str) -> str:
    """Write one run; returns the name that it got."""
    import trackio

    steps: dict[int, dict[str, float]] = {0: dict(run.metrics)}
    for metric, points in run.series.items():
        for step, value in points:
            steps.setdefault(step, {})[metric] = value
    options = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    if os.environ.get("TRACKIO_SPACE_ID"):
        options["private"] = True  # a Space that is made for this; an existing one stays what it is
    made = trackio.init(project, name=name, group=group, config={**run.parameters, **run.tags}, **options)
    try:
        for step in sorted(steps):
            if steps[step]:
                trackio.log(steps[step], step=step)
        with TemporaryDirectory() as folder:
            for file, content in run.files.items():
                path = Path(folder) / file
                path.write_bytes(content)
                trackio.log_artifact(path, name=OTHER.sub("-", f"{made.name}-{file}"), type="report")
    finally:
        trackio.finish()
    return str(made.name)
