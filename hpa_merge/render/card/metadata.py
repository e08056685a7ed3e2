"""The metadata of the card, through huggingface_hub's own classes."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from hpa_merge.inputs.names import MODEL, is_remote
from hpa_merge.render.card.results import results_of
from hpa_merge.render.card.usage import is_original_llava, usage_of
from hpa_merge.report.schema import MergeReport

__all__ = ["Loader", "hub_ids", "metadata_of", "to_yaml"]

TAGS = ("hpa-merge", "merge")
ADAPTER_TAGS = ("lora", "hpa-merge")

LICENCE = ("license", "license_name", "license_link")
"""All three come from the same card."""

ORDER = ("base_model", "base_model_relation", "library_name", "pipeline_tag", *LICENCE, "language", "datasets", "tags")


class Loader(yaml.SafeLoader):
    """YAML as the Hub reads it, where ``language: no`` is Norwegian and a date is a text."""


Loader.yaml_implicit_resolvers = {}  # of a class of its own: SafeLoader's stay as they are
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"0|-?[1-9][0-9]*", "-0123456789"),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+][0-9]+)?|[eE][-+][0-9]+)", "-0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def metadata_of(report: MergeReport, theirs: Mapping[str, Any], fallback: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of OUT's card: NEW's, except for the base models, how it is loaded, adapter tags and results.

    Args:
        theirs: those of NEW's card without its ``model-index``, or of an existing card of OUT with it.
        fallback: those of OLD's card.
    """
    data = dict(theirs)
    if not any(data.get(name) for name in LICENCE):
        data |= _licence(report, fallback)
    for name in ("language", "datasets"):
        if not data.get(name) and fallback.get(name):
            data[name] = fallback[name]
    bases = _bases(report, theirs)
    for name in ("base_model", "base_model_relation"):
        data.pop(name, None)
    if bases:
        data |= {"base_model": bases, "base_model_relation": "adapter" if report.is_adapter else "merge"}
    if not is_original_llava(report):
        data["library_name"] = "peft" if report.is_adapter else "transformers"
    if not isinstance(data.get("pipeline_tag"), str):
        data["pipeline_tag"] = usage_of(report).task
    data["tags"] = _tags(report, data.get("tags"))
    data["model-index"] = results_of(report, data["pipeline_tag"], data.get("model-index"))
    order = [*theirs, *(name for name in ORDER if name not in theirs), "model-index"]
    return {name: data[name] for name in dict.fromkeys(order) if data.get(name) is not None}


def to_yaml(data: Mapping[str, Any]) -> str:
    """The metadata as huggingface_hub writes them, in this order.

    Raises:
        ValueError, TypeError: huggingface_hub does not accept them.
    """
    return ModelCardData(**data).to_yaml(original_order=list(data))


def hub_ids(report: MergeReport) -> list[str]:
    """OLD and NEW if they are from the Hub, without revisions."""
    named = (name.partition("@")[0] for name in (report.run.old, report.run.new) if name in report.run.commits)
    return list(dict.fromkeys(named))


def _bases(report: MergeReport, theirs: Mapping[str, Any]) -> list[str]:
    """The models on the Hub that OUT was made from; for an adapter, the one that it is for.

    If NEW is a folder, the base models of its card are used, as far as they are names on the Hub: trainers also write
    local folders there.
    """
    found = hub_ids(report)
    if report.is_adapter:
        found = [name for name in found if name == report.run.old.partition("@")[0]]
    if report.run.new not in report.run.commits and not (report.is_adapter and found):
        found += [name for name in _texts(theirs.get("base_model")) if _is_hub_id(name, report)]
    return list(dict.fromkeys(found))


def _is_hub_id(name: str, report: MergeReport) -> bool:
    return is_remote(name) and "@" not in name and name not in (report.run.old, report.run.new)


def _tags(report: MergeReport, theirs: Any) -> list[str]:
    """NEW's tags and ours; those of an adapter only if OUT is one."""
    lost = report.run.adapter and not report.is_adapter
    gone = {"peft", "adapter", "lora", report.run.adapter.lower()} if lost else set()
    kept = (tag for tag in _texts(theirs) if not tag.startswith("base_model:") and tag.lower() not in gone)
    return list(dict.fromkeys([*kept, *(ADAPTER_TAGS if report.is_adapter else TAGS)]))


def _licence(report: MergeReport, fallback: Mapping[str, Any]) -> dict[str, Any]:
    """The licence of OLD's card; a link to a file of OLD becomes one to the Hub, or is left out."""
    found = {name: fallback[name] for name in LICENCE if fallback.get(name)}
    link = found.get("license_link")
    if isinstance(link, str) and "://" not in link:
        del found["license_link"]
        name, _, revision = report.run.old.partition("@")
        if report.run.old in report.run.commits and MODEL.fullmatch(name):
            found["license_link"] = f"https://huggingface.co/{name}/blob/{revision or 'main'}/{link}"
    return found


def _texts(value: Any) -> Iterable[str]:
    """A text, or the texts of a list: cards have either."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, str)]
