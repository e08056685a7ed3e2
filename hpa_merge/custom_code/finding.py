"""Which code a checkpoint brings: the files that ``auto_map`` of its configurations names, and what those import.

Nothing is run here. The files are read once, and what was read is what is digested, compared and run.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import NotInside, TooLong, read_inside
from hpa_merge.files.parsing import CONFIG, parse_json

__all__ = ["Code", "Part", "Reference", "find_model", "find_references", "read_part", "relative_imports", "untrusted"]

CONFIGURATIONS = (
    *("config.json", "tokenizer_config.json", "processor_config.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json"),
)
"""The files in which transformers looks for ``auto_map``."""

AUTO = (
    *("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForVision2Seq", "AutoModelForSeq2SeqLM"),
    *("AutoModelForMultimodalLM", "AutoModel"),
)
"""The entries of ``auto_map`` that may name a model which generates text, in the order in which they are tried."""

REFERENCE = re.compile(r"(?:(?P<repository>[\w.-]+/[\w.-]+)--)?(?P<module>[\w-]+)\.(?P<name>\w+)", re.ASCII)
"""``module.Class``, or ``org/name--module.Class`` for code in another repository."""

FILE_BYTES, FILES = 2**22, 1000
"""The longest file of code, 4 MiB, and the most files."""

DEPTH = 20
"""The most folders below each other in an import."""

IMPORT = re.compile(r"\bfrom[ \t]++(\.++)([\w.]*+)[ \t]++import[ \t]*+(\([^)]{0,2000}+|(?:[^#\n\\]|\\\n){0,2000}+)")
"""A relative import. Nothing is tried twice and the names are bounded, so the matching time is linear."""


@final
@dataclass(frozen=True)
class Reference:
    """An entry of an ``auto_map``.

    Attributes:
        file: the configuration that has it.
        auto: the class of transformers that it is for, such as ``AutoModelForCausalLM``.
        repository: the repository that has the module; empty for the checkpoint's own folder.
        module, name: the module and the class in it.
    """

    file: str
    auto: str
    repository: str
    module: str
    name: str

    @property
    def of_models(self) -> bool:
        """Whether it is for a model, and not for a tokenizer or a processor."""
        return self.auto == "AutoConfig" or self.auto.startswith("AutoModel")

    @property
    def path(self) -> str:
        """The file of the module."""
        return f"{self.module}.py"

    @property
    def shown(self) -> str:
        """The file, for people."""
        return f"{self.path} of {self.repository}" if self.repository else self.path


@final
@dataclass(frozen=True)
class Part:
    """The code that lies in one place.

    Attributes:
        repository: as in :class:`Reference`.
        commit: the commit of the repository; empty for a folder.
        folder: where the files lie.
        files: the content of each, by its path in the folder.
        lacking: why there is none, if the repository cannot be read.
    """

    repository: str
    commit: str
    folder: Path
    files: Mapping[str, bytes]
    lacking: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the paths and contents of the files, in hexadecimal."""
        files = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(self.files.items())]
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()


@final
@dataclass(frozen=True)
class Code:
    """All code that a checkpoint brings.

    Attributes:
        references: every entry of an ``auto_map``.
        architecture: the class that ``architectures`` in config.json names; empty without one.
        parts: where the code lies, by repository; the checkpoint's own folder is among them.
    """

    references: tuple[Reference, ...]
    architecture: str
    parts: Mapping[str, Part]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files and of what ``auto_map`` names, in hexadecimal, wherever the files lie."""
        named = sorted({(each.auto, each.module, each.name) for each in self.references})
        files = sorted(part.digest for part in self.parts.values() if part.files)
        return hashlib.sha256(json.dumps([named, files]).encode()).hexdigest()

    @property
    def model(self) -> Reference | None:
        """The entry for the model; None if its class is transformers' own."""
        return find_model(self.references, self.architecture)

    def contents(self, *, of_the_model: bool) -> dict[str, bytes]:
        """The files that the model is built with, or those of its tokenizer and processor alone, by path.

        Of one path in two places, the contents stand one after the other.
        """
        config = [each for each in self.references if each.file == "config.json" and each.auto == "AutoConfig"]
        model = [*config, *filter(None, [self.model])]
        others = [each for each in self.references if not each.of_models]
        found: dict[str, bytes] = {}
        for part in self.parts.values():
            roots = [[each.path for each in kind if each.repository == part.repository] for kind in (model, others)]
            reach = _reached(part.files, roots[0])
            for path in sorted(reach if of_the_model else _reached(part.files, roots[1]) - reach):
                found[path] = found.get(path, b"") + part.files[path]
        return found


def find_model(references: Iterable[Reference], architecture: str) -> Reference | None:
    """The entry for the model: with the class that ``architectures`` names or else for one that generates text."""
    models = [each for each in references if each.file == "config.json" and each.auto.startswith("AutoModel")]
    by_auto = {each.auto: each for each in reversed(models)}
    named = next((each for each in models if each.name == architecture), None)
    return named or next((by_auto[auto] for auto in AUTO if auto in by_auto), None)


def find_references(folder: Path) -> tuple[Reference, ...]:
    """The code that the configurations in a folder name; what cannot be parsed names none."""
    found: list[Reference] = []
    for file in CONFIGURATIONS:
        try:
            content = parse_json(read_inside(folder, file, CONFIG.size), CONFIG)
        except (OSError, ValueError, RecursionError):
            continue
        for auto, text in _named(content, file):
            if match := REFERENCE.fullmatch(text):
                found.append(Reference(file, auto, match["repository"] or "", match["module"], match["name"]))
    return tuple(dict.fromkeys(found))


def untrusted(who: str, what: str, named: Iterable[Reference]) -> str:
    """The refusal of code that is not trusted.

    Args:
        who: the checkpoint.
        what: for what it brings the code.
        named: the entries that name it.
    """
    listed = list(named)
    files = ", ".join(sorted({each.shown for each in listed}))
    places = " and ".join(sorted({each.file for each in listed}))
    return (
        f"{who} brings code of its own for its {what} ({files}, named by auto_map in {places}), and such code is not "
        "run: read it, and give --trust-remote-code (trust_remote_code in Python) if you trust it."
    )


def read_part(repository: str, commit: str, folder: Path, references: Iterable[Reference], role: str) -> Part:
    """The files in ``folder`` that the references to ``repository`` reach; absent ones are left out.

    Raises:
        CheckpointError: a file is too long or not the folder's own, cannot be read, or there are too many.
    """
    files: dict[str, bytes] = {}
    waiting = [each.path for each in references if each.repository == repository]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        try:
            files[path] = read_inside(folder, path, FILE_BYTES)
        except (NotInside, TooLong) as error:
            raise CheckpointError(error.sentence(f"{role} {folder}: {path}")) from error
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise CheckpointError(
                f"{role} {folder}: {path} cannot be read ({error.strerror or error}): check its permissions."
            ) from error
        if len(files) > FILES:
            raise CheckpointError(f"{role} {folder} brings more than {FILES} files of code: give a model with fewer.")
        waiting += relative_imports(files[path].decode("utf-8", "replace"), path)
    return Part(repository, commit, folder, dict(sorted(files.items())))


def _reached(files: Mapping[str, bytes], roots: Iterable[str]) -> set[str]:
    """The paths among ``files`` that are roots, or that those import."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path in files and path not in found:
            found.add(path)
            waiting += relative_imports(files[path].decode("utf-8", "replace"), path)
    return found


def relative_imports(text: str, path: str) -> list[str]:
    """The paths of the files that a module may import relatively: those that exist are its code.

    Text that only looks like an import counts too: at most it adds other files of the model.

    Args:
        text: the module's source.
        path: its file in the folder, with slashes.
    """
    found: set[str] = set()
    folder = path.split("/")[:-1]
    for dots, module, names in set(IMPORT.findall(text)):
        above = len(dots) - 1
        if above > len(folder) or module.count(".") > DEPTH:
            continue
        here = [*folder[: len(folder) - above], *filter(None, module.split("."))]
        places = {"/".join(here[:end]) for end in range(1, len(here) + 1)}
        places |= {"/".join((*here, name)) for name in re.findall(r"\w+", names)}
        found |= {f"{place}{ending}" for place in places for ending in (".py", "/__init__.py")}
    return sorted(found)


def _named(content: Any, file: str) -> Iterator[tuple[str, str]]:
    """Each class of transformers in an ``auto_map`` of a parsed configuration, at any depth, and what it names."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            given = value.get("auto_map")
            if isinstance(given, list):  # as tokenizers of 2022 have it
                given = {"AutoTokenizer": given}
            if isinstance(given, dict):
                yield from ((str(auto), text) for auto, named in given.items() for text in _texts(named))
            waiting += value.values()


def _texts(value: Any) -> list[str]:
    """The texts in a text, a list (a tokenizer's two classes) or a mapping (an image processor's, by library)."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]
