"""Run the code that a checkpoint brings, for a user who trusts it.

transformers copies such code into ``HF_MODULES_CACHE`` and imports the copy. Here nothing is copied: the modules are
made from the files that :mod:`.finding` has read. So what runs is what the report names, and neither an earlier copy
nor a ``.pyc`` file nor another folder of the same name can take its place. Each folder has modules of its own.

While :func:`running` is in effect, transformers finds that code and no other, and its auto classes know the classes
that the code registers. Afterwards they are unregistered, so that another checkpoint cannot get them.
"""

import hashlib
import importlib
import os
import sys
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, final

from transformers import dynamic_module_utils

from hpa_merge.custom_code.finding import Code, Part, Reference
from hpa_merge.errors import CheckpointError

__all__ = ["PACKAGE", "class_of", "is_own", "is_running", "running"]

PACKAGE = "hpa_merge_custom_code"
"""The package of all modules that are made here; there is no such folder."""

AUTO = tuple(
    f"transformers.models.auto.{name}"
    for name in (
        *("configuration_auto", "auto_factory", "modeling_auto", "tokenization_auto", "processing_auto"),
        *("image_processing_auto", "video_processing_auto", "feature_extraction_auto"),
    )
)
"""The modules of transformers that decide whether code is run, and that keep what code registers."""

_dynamic: Any = dynamic_module_utils
_lock = threading.RLock()
_running: list[Code] = []
_served: dict[str, Part] = {}
"""The parts whose modules can be imported, by package."""
_registered: dict[str, list[tuple[MutableMapping[Any, Any], dict[Any, Any]]]] = {}
"""What the code of a package has registered with transformers: where, and what."""


def is_running() -> bool:
    """Whether the block of :func:`running` is in effect with code."""
    return bool(_running)


@contextmanager
def running(code: Code | None) -> Iterator[None]:
    """Within the block, transformers may run ``code`` and no other; None changes nothing."""
    if code is None:
        yield
        return
    with _lock:
        modules: list[Any] = [importlib.import_module(name) for name in AUTO]
        deciding = [module for module in modules if hasattr(module, "resolve_trust_remote_code")]
        replaced: list[tuple[Any, str, Any]] = [(module, "resolve_trust_remote_code", _trusting) for module in deciding]
        replaced += [(_dynamic, "get_cached_module_file", _module_of), (_dynamic, "get_class_in_module", _class_in)]
        originals = [getattr(module, name) for module, name, _ in replaced]
        package = _package(code, code.parts[""])
        before = [(place, dict(place)) for place in _registries(modules)]
        for place, names in _registered.get(package, ()):
            place.update(names)
        for module, name, ours in replaced:
            setattr(module, name, ours)
        _running.append(code)
        try:
            yield
        finally:
            _running.pop()
            for (module, name, _), original in zip(replaced, originals, strict=True):
                setattr(module, name, original)
            _forget(package, before)


def is_own(found: type) -> bool:
    """Whether a class is of the code of a checkpoint."""
    return found.__module__.startswith(f"{PACKAGE}.")


def class_of(code: Code, reference: Reference) -> Any:
    """The class that a reference names; within :func:`running`.

    Raises:
        CheckpointError: there is no such file, or no such class in it.
        BaseException: whatever the code raises while it is imported.
    """
    return _class_in(reference.name, _module_in(code, code.parts[reference.repository], reference.path))


def _trusting(*_: object, **__: object) -> bool:
    """Replaces ``resolve_trust_remote_code``: the user has answered that question."""
    return True


def _module_of(repository: str | os.PathLike[str], module_file: str, *_: object, **__: object) -> str:
    """Replaces ``get_cached_module_file``, which copies a file of code: the name of its module."""
    code, name = _running[-1], str(repository)
    part = code.parts.get(name) or (code.parts[""] if Path(name).is_dir() else None)
    if part is None:
        raise CheckpointError(
            f"the model's own code asks for {module_file} of {name}, which no auto_map of its configurations names: "
            "only code that they name is run."
        )
    return _module_in(code, part, module_file)


def _module_in(code: Code, part: Part, path: str) -> str:
    """The name of the module of a file."""
    if part.lacking:
        raise CheckpointError(part.lacking)
    if path not in part.files:
        where = part.repository or part.folder
        raise CheckpointError(
            f"{where} has no {path}, which auto_map in its configuration names: add that file to the folder, from "
            "the model that it was tuned from or from the Hub."
        )
    package = _package(code, part)
    if package not in _served:
        _served[package] = part
        for name in (PACKAGE, package):
            made = sys.modules.setdefault(name, ModuleType(name))
            made.__path__ = []  # no folder: only the finder below finds modules
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
    return f"{package}.{path.removesuffix('.py').replace('/', '.')}"


def _class_in(class_name: str, module: str | os.PathLike[str], **_: object) -> Any:
    """Replaces ``get_class_in_module``, which imports the copy: a class of a module that :func:`_module_in` named."""
    found = getattr(importlib.import_module(str(module)), class_name, None)
    if found is None:
        file = str(module).rpartition(".")[2]
        raise CheckpointError(
            f"{file}.py has no class {class_name}, which auto_map in the configuration names: correct the name there, "
            "or fetch that file again."
        )
    return found


def _package(code: Code, part: Part) -> str:
    """The package of a part: another for other code, and for the same code in another folder."""
    told = f"{code.digest} {part.folder.absolute()} {part.repository} {part.commit}"
    return f"{PACKAGE}.c{hashlib.sha256(told.encode(errors='surrogateescape')).hexdigest()[:16]}"


def _registries(modules: Sequence[ModuleType]) -> list[MutableMapping[Any, Any]]:
    """The mappings in which transformers keeps the classes that others register."""
    found = {
        id(extra): extra
        for module in modules
        for value in vars(module).values()
        if isinstance(extra := getattr(value, "_extra_content", None), dict)
    }
    names = getattr(sys.modules["transformers.models.auto.tokenization_auto"], "REGISTERED_TOKENIZER_CLASSES", None)
    return [*found.values(), *([names] if isinstance(names, dict) else [])]


def _forget(package: str, before: Sequence[tuple[MutableMapping[Any, Any], dict[Any, Any]]]) -> None:
    """Remove what was registered since then, and keep it for the next time that this code runs."""
    kept = _registered.setdefault(package, [])
    for place, then in before:
        if gained := {name: value for name, value in place.items() if then.get(name) is not value}:
            kept.append((place, gained))
            place.clear()
            place.update(then)


@final
class _Finder(MetaPathFinder):
    """Finds the modules of the parts, by their packages."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = ".".join(fullname.split(".")[:2])
        if package not in _served or package == fullname:
            return None
        part, inner = _served[package], fullname.removeprefix(f"{package}.").replace(".", "/")
        for file in (f"{inner}/__init__.py", f"{inner}.py"):
            if file in part.files:
                within: list[str] | None = [] if file.endswith("/__init__.py") else None
                return spec_from_file_location(
                    fullname, part.folder / file, loader=_Loader(part, file), submodule_search_locations=within
                )
        if any(file.startswith(f"{inner}/") for file in part.files):
            return ModuleSpec(fullname, None, is_package=True)
        return None


@final
class _Loader(SourceLoader):
    """A module from the bytes that were read; no compiled file is read or written."""

    def __init__(self, part: Part, file: str) -> None:
        self._part, self._file = part, file

    def get_filename(self, fullname: str) -> str:
        return str(self._part.folder / self._file)

    def get_data(self, path: str | bytes) -> bytes:
        return self._part.files[self._file]
