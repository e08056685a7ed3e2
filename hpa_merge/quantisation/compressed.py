"""compressed-tensors, and two formats with the same scales: FP8 by tensor or channel, int8, int4 and fewer, MX and NV.

Which scheme a weight has follows from its tensors, not from the patterns in the configuration: whoever wrote these may
have written a regular expression that never ends.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hpa_merge.quantisation.configuration import FULL, Refused
from hpa_merge.quantisation.recipe import FLOAT8, Format, Parts, Quantised, Recipe

__all__ = ["COMPRESSED", "FBGEMM", "MODELOPT"]

LIBRARY = "compressed_tensors"

SPARSE = ("sparse-24-bitmask", "sparse-bitmask", "marlin-24")
"""Formats that leave out zeros, or put values into another order."""


def find(given: Quantised) -> Iterator[Recipe]:
    """Every weight that one of the configuration's groups describes."""
    schemes = list(_schemes(given.config))
    for name, (dtype, _) in given.header.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight_packed" or (leaf == "weight" and dtype in (*FLOAT8, torch.int8)):
            yield _recipe(given, module, schemes)


COMPRESSED = Format(find, LIBRARY)


def find_by_channel(given: Quantised) -> Iterator[Recipe]:
    """FP8 weights with ``weight_scale``: one for each row, or one for all."""
    for name, (dtype, shape) in given.header.items():
        scale = f"{name}_scale"
        if dtype in FLOAT8 and scale in given.header:
            scales = given.header[scale][1]
            if len(shape) != 2 or math.prod(scales) not in (1, shape[0]):
                raise Refused(f"{name} is {list(shape)} with the scales {list(scales)}: {FULL}")
            strategy = "channel" if math.prod(scales) == shape[0] else "tensor"
            scheme = _scheme({"weights": {"num_bits": 8, "type": "float", "strategy": strategy}}, "float-quantized")
            parts = {"weight": name, "weight_scale": scale}
            yield Recipe(name, shape, parts, partial(_unpack, scheme=scheme), f"FP8 by {strategy}")


FBGEMM = Format(find_by_channel, LIBRARY)


def find_modelopt(given: Quantised) -> Iterator[Recipe]:
    """ModelOpt's FP8; its other formats are refused."""
    algorithm = given.config.get("quant_algo")
    if algorithm != "FP8":
        raise Refused(f"quant_algo {algorithm!r:.40} is not read here, only FP8 is: {FULL}")
    return find_by_channel(given)


MODELOPT = Format(find_modelopt, LIBRARY)


def _schemes(config: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The scheme of each group of the configuration, and the name of its format.

    Raises:
        Refused: the configuration describes something other than weights in few bits.
    """
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise Refused(f"its configuration has no config_groups: {FULL}")
    sparsity = config.get("sparsity_config") or {}
    if isinstance(sparsity, dict) and sparsity.get("format", "dense") not in ("dense", None):
        raise Refused(f"its weights are stored sparse ({sparsity['format']!r:.40}): {FULL}")
    if config.get("transform_config"):
        raise Refused(f"its weights are rotated (transform_config), and only a forward rotates them back: {FULL}")
    for group in groups.values():
        if not isinstance(group, dict):
            raise Refused(f"a group of its configuration is {group!r:.40}, which is not a scheme: {FULL}")
        fmt = group.get("format") or config.get("format")
        if fmt in SPARSE:
            raise Refused(f"its weights are stored sparse ({fmt}): {FULL}")
        if group.get("weights"):
            yield _scheme(group, None if fmt in ("mixed-precision", "dense", "fakequant") else fmt)


def _scheme(group: Mapping[str, Any], fmt: str | None) -> tuple[Any, str]:
    """The scheme of a group as compressed-tensors has it, and the name of its format: ``fmt``, or what it infers.

    Raises:
        Refused: compressed-tensors does not read it.
    """
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.config import CompressionFormat
    from compressed_tensors.quantization import QuantizationScheme

    try:
        fields = {"targets": [], **{k: v for k, v in group.items() if k in QuantizationScheme.model_fields}}
        scheme = QuantizationScheme.model_validate(fields)
        found = CompressionFormat(fmt or infer_module_format(torch.nn.Linear, scheme))
    except Exception as error:  # pydantic's, and whatever the library raises for what it does not know
        reason = " ".join(str(error).split())[:120]
        raise Refused(f"its configuration is not one that compressed-tensors reads ({reason}): {FULL}") from error
    return scheme, found.value


def _recipe(given: Quantised, module: str, schemes: list[tuple[Any, str]]) -> Recipe:
    """The recipe of a module's weight, by the first scheme that its tensors fit."""
    from compressed_tensors.compressors import BaseCompressor

    if f"{module}.weight_g_idx" in given.header:
        raise Refused(f"the columns of {module} are in another order (weight_g_idx): {FULL}")
    for scheme, fmt in schemes:
        names = BaseCompressor.get_value_from_registry(fmt).compression_param_names(scheme)
        parts = {leaf: f"{module}.{leaf}" for leaf in names if not leaf.startswith(("input", "output"))}
        if not all(name in given.header for name in parts.values()):
            continue
        shape = _shape(given, parts)
        if shape is not None and _fits(given, parts, shape, scheme.weights):
            return Recipe(
                f"{module}.weight", shape, parts, partial(_unpack, scheme=(scheme, fmt)), _kind(scheme.weights, fmt)
            )
    leaves = sorted(name.rpartition(".")[2] for name in given.header if name.startswith(f"{module}.weight"))
    raise Refused(f"{module} has {', '.join(leaves)}, and no group of the configuration describes that: {FULL}")


def _shape(given: Quantised, parts: Mapping[str, str]) -> tuple[int, ...] | None:
    """The shape of the weight; None if its tensors contradict each other."""
    if "weight_shape" in parts:
        if given.header[parts["weight_shape"]][1] != (2,):
            return None
        rows, columns = (int(n) for n in given.read(parts["weight_shape"]))
        return (rows, columns) if rows > 0 and columns > 0 else None
    name = next(iter(parts.values()))
    dtype, shape = given.header[name]
    return (*shape[:-1], 2 * shape[-1]) if dtype == torch.uint8 else shape


def _fits(given: Quantised, parts: Mapping[str, str], shape: tuple[int, ...], weights: Any) -> bool:
    """Whether tensors of these shapes and dtypes hold a weight of ``shape`` in that scheme."""
    dtype, stored = given.header[next(iter(parts.values()))]
    if len(shape) < 2:
        return False
    rows, columns = shape[-2:]
    packed = "weight_packed" in parts
    if packed and dtype == torch.int32 and stored != (rows, math.ceil(columns * weights.num_bits / 32)):
        return False
    if not packed and (dtype in FLOAT8) != (weights.type == "float"):
        return False
    scales = given.header[parts["weight_scale"]][1]
    strategy = weights.strategy
    if strategy in ("group", "tensor_group"):
        return len(shape) == 2 and scales == (rows, math.ceil(columns / weights.group_size))
    if strategy == "block":
        steps = weights.block_structure
        return len(shape) == 2 and scales == tuple(-(-n // step) for n, step in zip(shape, steps, strict=True))
    return math.prod(scales) == (rows if strategy == "channel" else 1)


def _kind(weights: Any, fmt: str) -> str:
    """What people call it: ``FP8 by channel``, ``int4 by group``, ``NVFP4``."""
    if fmt.startswith(("nvfp4", "mxfp")):
        return fmt.partition("-")[0].upper()
    return f"{'FP' if weights.type == 'float' else 'int'}{weights.num_bits} by {weights.strategy}"


def _unpack(parts: Parts, dtype: torch.dtype, *, scheme: tuple[Any, str]) -> Tensor:
    from compressed_tensors.compressors import BaseCompressor

    rule, fmt = scheme
    state = dict(parts)
    if state["weight_scale"].dtype.itemsize > 1:  # the product is rounded once, to ``dtype``
        state["weight_scale"] = state["weight_scale"].to(torch.float32)
    if fmt == "float-quantized" and state["weight_scale"].ndim < 2:
        state["weight_scale"] = state["weight_scale"].reshape(-1, 1)
    found: Tensor = BaseCompressor.get_value_from_registry(fmt).decompress(state, rule)["weight"]
    return found.to(dtype)
