"""What --overwrite may delete: a folder that a merge has made, or a checkpoint."""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.errors import OutputError
from hpa_merge.files import parsing
from hpa_merge.files.disk import mount_points
from hpa_merge.files.names import REPORT
from hpa_merge.files.weight_names import CONFIGS, has_header, is_weight_name

__all__ = ["check_replaceable"]

TEXTS = {"readme", "license", "licence", "notice", "copying", "use_policy", "usage_policy", "acceptable_use_policy"}
"""Names of a checkpoint's texts, in lower case and without a suffix."""

VOCABULARIES = {".model", ".tiktoken", ".spm", ".vocab", ".bpe", ".jinja"}
"""Suffixes of a tokenizer's files and of templates."""

CONFIGURATIONS = (
    *("config", "generation_config", "tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens", "vocab"),
    *("preprocessor_config", "processor_config", "video_preprocessor_config", "image_processor_config"),
    *("feature_extractor_config", "chat_template", "adapter_config", "normalizer", "merges", "quantize_config"),
)
"""Names of a checkpoint's JSON files, without the suffix."""

HIDDEN = {".gitattributes", ".cache"}
"""What a download from the Hub leaves, and nobody needs."""


def check_replaceable(out: Path) -> None:
    """Check that the folder at ``out`` may be deleted when another one replaces it; an empty folder may.

    Raises:
        OutputError: it is not a folder, or a mount point; it is neither an OUT nor a checkpoint; or it holds something
            that does not belong to one.
        OSError: it cannot be read.
    """
    kind = out.lstat().st_mode
    if not stat.S_ISDIR(kind):
        what = "a link" if stat.S_ISLNK(kind) else "a file" if stat.S_ISREG(kind) else "neither a file nor a folder"
        raise OutputError(
            f"OUT {out} is {what}, and --overwrite replaces folders only: choose another folder, or remove it first."
        )
    for place in mount_points(out):
        where = "is a mount point" if place == Path(os.path.realpath(out)) else f"holds the mount point {place}"
        raise OutputError(f"OUT {out} {where}, which cannot be replaced: choose a folder in it, or another place.")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    report = _report(out)
    if report is None and (missing := _lacks(out, names)):
        raise OutputError(
            f"OUT {out} holds other things than a checkpoint (it has no {missing}), and --overwrite would delete them: "
            "choose another folder."
        )
    known = {str(name) for name in (report or {}).get("manifest", ())} | MADE
    code = _code(out)
    for path in _entries(out):
        name = path.relative_to(out).as_posix()
        if name not in known and not _belongs(out, path.relative_to(out), code):
            raise OutputError(
                f"OUT {out} holds {name}, which does not belong to a checkpoint, and --overwrite would delete it: "
                "move it away, or choose another folder."
            )


def _lacks(out: Path, names: list[str]) -> str:
    """What a folder with these files lacks to be a checkpoint; empty if it is one.

    Many programs have a config.json and a file something.bin. So the configuration has to be one of transformers or
    peft, and weights have to have the name that a library gives them, or a safetensors header.
    """
    model, adapter = (_object(out / name, parsing.CONFIG) or {} for name in CONFIGS)
    if not any(model.get(key) for key in ("model_type", "architectures")) and not adapter.get("peft_type"):
        return "config.json" if "config.json" not in names else "config.json of a model"
    return "" if any(_is_weights(out / name) for name in names if not name.endswith(".json")) else "weights"


def _is_weights(path: Path) -> bool:
    """Whether a file holds a model's weights, or is an index of such files."""
    return is_weight_name(path.name) or (path.suffix == ".safetensors" and has_header(path))


def _entries(out: Path) -> Iterator[Path]:
    """Every file of the folder and its subfolders, and every subfolder that is empty or a link."""
    for root, folders, files in os.walk(out):
        here = Path(root)
        yield from (here / name for name in files)
        yield from (here / name for name in folders if (here / name).is_symlink())
        if here != out and not folders and not files:
            yield here


def _belongs(out: Path, path: Path, code: set[str]) -> bool:
    """Whether the file at this path, relative to the folder, belongs to a checkpoint."""
    if path.parts[0] in HIDDEN:
        return path.parts[0] == ".gitattributes" or path.parts[:2] == (".cache", "huggingface")
    if path.parts[0] == "additional_chat_templates":
        return len(path.parts) == 2 and path.suffix == ".jinja"
    name = path.name.lower()
    stem, suffix = os.path.splitext(name.removesuffix(".index.json"))  # noqa: PTH122
    return len(path.parts) == 1 and (
        suffix in VOCABULARIES
        or _is_weights(out / path)
        or (suffix in (".json", ".txt") and stem in CONFIGURATIONS)
        or (suffix in ("", ".md", ".txt", ".pdf") and stem in TEXTS)
        or path.name in code
    )


def _report(out: Path) -> dict[str, Any] | None:
    """The report of a merge in the folder; None if there is none of ours."""
    content = _object(out / REPORT, parsing.REPORT)
    known = ("schema_version", "architecture", "config", "linears", "manifest", "run")
    if content is None or not all(name in content for name in known) or not isinstance(content["manifest"], dict):
        return None
    return dict(content)


def _code(out: Path) -> set[str]:
    """Names of the model's Python files: those in ``auto_map`` of config.json and, with it, those of the same kind."""
    mapped = (_object(out / "config.json", parsing.CONFIG) or {}).get("auto_map")
    values = mapped.values() if isinstance(mapped, Mapping) else ()
    names = {f"{str(value).rpartition('--')[2].partition('.')[0]}.py" for value in values}
    kinds = ("configuration_", "modeling_", "tokenization_", "processing_", "image_processing_", "generation_")
    return names | {path.name for path in out.glob("*.py") if names and path.name.startswith(kinds)}


def _object(path: Path, limits: parsing.Limits) -> Mapping[str, Any] | None:
    """The JSON object in a regular file within limits, not through a link; None if there is none."""
    if not path.is_file() or path.is_symlink():
        return None
    try:
        content = parsing.read_json(path, limits)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None
