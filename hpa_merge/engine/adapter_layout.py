"""The files of an OUT that is an adapter: NEW's, unless ranks or names differ."""

import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.adapter_files import laid_out
from hpa_merge.checkpoint.adapter_folder import CONFIG
from hpa_merge.files import parsing
from hpa_merge.model import Adapter
from hpa_merge.model.adapter_parts import AdapterPart

__all__ = ["adapter_layout"]


def adapter_layout(
    own: Checkpoint,
    adapter: Adapter,
    parts: Sequence[AdapterPart],
    ranks: Mapping[str, tuple[int, float]],
    *,
    every_rank: bool,
    turned: bool,
) -> Checkpoint:
    """OUT's files, as if NEW had them.

    Args:
        parts: OUT's tensors.
        ranks: rank and scaling of each parameter whose rank is not NEW's.
        every_rank: whether these are all layers of the adapter.
        turned: whether factors are in another order than NEW's, so that its version of peft would mislead.
    """
    tensors = {part.name: (part.dtype, part.shape) for part in parts}
    same_names = all(part.key == part.name for part in parts)
    if same_names and not ranks and not turned and not own.config.get("use_dora"):
        return laid_out(own, tensors)
    config = dict(own.config) if same_names else _saved(adapter.settings)
    config |= {"use_dora": False, "peft_version": version("peft")}
    return laid_out(own, tensors, json.dumps(config | _ranked(config, ranks, every_rank), indent=2).encode() + b"\n")


def _ranked(config: Mapping[str, Any], ranks: Mapping[str, tuple[int, float]], every_rank: bool) -> dict[str, Any]:
    """The settings of the ranks: for all layers at once, or for each by its path, before NEW's patterns.

    peft takes the first pattern that matches.
    """
    alphas = {name: _alpha(config, *found) for name, found in ranks.items()}
    found = {(ranks[name][0], alphas[name]) for name in ranks}
    if every_rank and len(found) == 1:
        ((rank, alpha),) = found
        return {"r": rank, "lora_alpha": alpha, "rank_pattern": {}, "alpha_pattern": {}}
    patterns = {name: _pattern(*name.rsplit(".", 1)) for name in ranks}
    return {
        "rank_pattern": {patterns[name]: ranks[name][0] for name in ranks} | (config.get("rank_pattern") or {}),
        "alpha_pattern": {patterns[name]: alphas[name] for name in ranks} | (config.get("alpha_pattern") or {}),
    }


def _pattern(module: str, leaf: str) -> str:
    """What matches a parameter's module, and the parameter if that is what the adapter targets."""
    return rf"^{re.escape(module)}(\.{re.escape(leaf)})?"


def _alpha(config: Mapping[str, Any], rank: int, scaling: float) -> float | int:
    """``alpha`` with which peft's scaling is this one."""
    alpha = scaling * (math.sqrt(rank) if config.get("use_rslora") else rank)
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha


def _saved(settings: Any) -> dict[str, Any]:
    """adapter_config.json as peft saves it, with the patterns in their order."""
    with tempfile.TemporaryDirectory(prefix="hpa-merge-") as folder:
        settings.save_pretrained(folder)
        content = parsing.read_json(Path(folder) / CONFIG, parsing.CONFIG)
    return {**content, **{name: dict(getattr(settings, name) or {}) for name in ("rank_pattern", "alpha_pattern")}}
