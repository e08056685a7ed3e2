"""Checkpoints in few bits, made of plain ones by the libraries' own writers, and what they hold, computed slowly.

A writer gets a weight ``[r, c]`` and gives the tensors that stand in its place, by what follows the module's name, and
the weight that they hold, in float64. Where no library writes a format on a CPU (GPTQ, AWQ), the bits are put in place
here, one number at a time.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from checkpoint_folders import INDEX, write_index
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["STACKS", "WRITERS", "dequantise", "quantise"]

Written = tuple[dict[str, Tensor], Tensor]

LINEAR = re.compile(r".*(layers|blocks|experts)\.\d+\..*(proj|fc1|fc2|qkv)\.weight")
"""The weights that are quantised: linears of blocks; embeddings, heads and norms stay as they are."""

GROUP = 16
FP8 = torch.float8_e4m3fn


def block_fp8(weight: Tensor, block: tuple[int, int] | None = (16, 16)) -> Written:
    """transformers' own writer."""
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = SimpleNamespace(weight_block_size=block, scale_fmt=None)
    found = Fp8Quantize(SimpleNamespace(quantization_config=config)).convert({"x.weight": weight})
    scale = found["x.weight_scale_inv"]
    steps = [size // count for size, count in zip(weight.shape, scale.shape, strict=True)]
    grid = scale.double().repeat_interleave(steps[0], 0).repeat_interleave(steps[1], 1)
    return {"weight": found["x.weight"], "weight_scale_inv": scale}, found["x.weight"].double() * grid


def edged_fp8(weight: Tensor) -> Written:
    """Blocks that do not divide the weight, as in DeepSeek's ``kv_a_proj_with_mqa``; the last ones are smaller."""
    step = 48
    rows, columns = (-(-size // step) for size in weight.shape)
    scale, held = torch.empty(rows, columns), torch.empty_like(weight, dtype=torch.float64)
    stored = torch.empty(weight.shape, dtype=FP8)
    for i in range(rows):
        for j in range(columns):
            here = slice(i * step, (i + 1) * step), slice(j * step, (j + 1) * step)
            scale[i, j] = weight[here].abs().max().float() / 448
            stored[here] = (weight[here].float() / scale[i, j]).to(FP8)
            held[here] = stored[here].double() * scale[i, j].double()
    return {"weight": stored, "weight_scale_inv": scale}, held


def by_row(weight: Tensor) -> Written:
    """FBGEMM's scales, by transformers' function."""
    from transformers.integrations.compressed_tensors import quantize_fp8_per_row

    stored, scale = quantize_fp8_per_row(weight)
    held = stored.double() * scale.double()[:, None]
    return {"weight": stored, "weight_scale": scale[:, None], "input_scale_ub": torch.tensor([1200.0])}, held


def by_tensor(weight: Tensor) -> Written:
    """ModelOpt's scale of a whole weight, a scalar."""
    scale = weight.abs().max().float() / 448
    stored = (weight.float() / scale).to(FP8)
    return {"weight": stored, "weight_scale": scale, "input_scale": torch.tensor(2.0)}, stored.double() * scale.double()


def compressed(scheme: dict[str, Any], fmt: str, bits: int = 8) -> Callable[[Tensor], Written]:
    """The compressor of compressed-tensors, with scales that it computes."""

    def write(weight: Tensor) -> Written:
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationScheme
        from compressed_tensors.quantization.utils import calculate_qparams

        rule = QuantizationScheme.model_validate({"targets": ["Linear"], **scheme})
        args = rule.weights
        kept = {"tensor": weight.reshape(1, -1), "channel": weight}.get(args.strategy)
        groups = weight.reshape(len(weight), -1, args.group_size) if kept is None else kept
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), args)
        state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
        if kept is not None:
            shape = (1,) if args.strategy == "tensor" else (-1, 1)
            state |= {"weight_scale": scale.reshape(shape), "weight_zero_point": zero.reshape(shape)}
        found = BaseCompressor.get_value_from_registry(fmt).compress(state, rule)
        numbers = (
            found["weight"].double() if "weight" in found else _unpacked(found["weight_packed"], bits, weight.shape)
        )
        step = weight.shape[1] // state["weight_scale"].shape[-1] if kept is None else weight.shape[1]
        by_column = [
            each.double().expand(len(weight), -1).repeat_interleave(step, 1) if each.ndim > 1 else each.double()
            for each in (state["weight_scale"], state["weight_zero_point"])
        ]
        return found, (numbers - by_column[1]) * by_column[0]

    return write


def _unpacked(packed: Tensor, bits: int, shape: torch.Size) -> Tensor:
    """Signed numbers from words whose lowest bits come first."""
    held = torch.empty(shape, dtype=torch.float64)
    for row in range(shape[0]):
        whole = sum((int(word) & 0xFFFFFFFF) << 32 * place for place, word in enumerate(packed[row]))
        for column in range(shape[1]):
            held[row, column] = (whole >> bits * column & (1 << bits) - 1) - (1 << bits - 1)
    return held


def four_bits(kind: str, nested: bool, storage: torch.dtype = torch.uint8) -> Callable[[Tensor], Written]:
    """bitsandbytes' own writer; the numbers of its code are looked up one by one."""

    def write(weight: Tensor) -> Written:
        from bitsandbytes.functional import quantize_4bit

        packed, state = quantize_4bit(
            weight, blocksize=64, compress_statistics=nested, quant_type=kind, quant_storage=storage
        )
        parts = state.as_dict(packed=True)
        code, absmax = state.code.double(), state.absmax.double()
        if nested:
            inner = state.state2
            absmax = (
                inner.code.double()[state.absmax.long()]
                * inner.absmax.double().repeat_interleave(inner.blocksize)[: len(state.absmax)]
                + state.offset.double()
            )
        pairs = packed.reshape(-1).view(torch.uint8)
        halves = torch.stack((pairs >> 4, pairs & 15), dim=1).reshape(-1)
        held = code[halves.long()] * absmax.repeat_interleave(64)[: len(halves)]
        return {"weight": packed, **{f"weight.{leaf}": value for leaf, value in parts.items()}}, held.view(weight.shape)

    return write


def eight_bits(weight: Tensor) -> Written:
    from bitsandbytes.functional import int8_vectorwise_quant

    stored, scale, _ = int8_vectorwise_quant(weight.half())
    held = stored.double() * scale.double()[:, None] / 127
    return {"weight": stored, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}, held


def gptq(bits: int, shift: int, ordered: bool) -> Callable[[Tensor], Written]:
    """``qweight`` by columns and ``qzeros`` by rows, the lowest bits first; zeros less ``shift``."""

    def write(weight: Tensor) -> Written:
        columns = weight.shape[1]
        group = torch.arange(columns) // GROUP
        if not ordered:
            group = group[torch.randperm(columns, generator=torch.Generator().manual_seed(columns))]
        numbers, scale, zero = _grouped(weight, group, (1 << bits) - 1)
        held = (numbers - zero.double()[:, group]) * scale.double()[:, group]
        mask = (1 << bits) - 1
        return {
            "qweight": _packed(numbers.T.long(), bits, 0),
            "qzeros": _packed((zero.T.long() - shift) & mask, bits, 1),
            "scales": scale.T.contiguous(),
            **({} if ordered else {"g_idx": group.int()}),
        }, held

    return write


def awq(weight: Tensor) -> Written:
    """AutoAWQ's order within a word: 0, 2, 4, 6, 1, 3, 5, 7."""
    group = torch.arange(weight.shape[1]) // GROUP
    numbers, scale, zero = _grouped(weight, group, 15)
    held = (numbers - zero.double()[:, group]) * scale.double()[:, group]
    order = torch.arange(len(weight)).view(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(-1)
    return {
        "qweight": _packed(numbers.T.long()[:, order], 4, 1),
        "qzeros": _packed(zero.T.long()[:, order], 4, 1),
        "scales": scale.T.contiguous(),
    }, held


def stacked_fp8(weight: Tensor) -> Written:
    """transformers' own writer, on a stack ``[experts, r, c]``."""
    from transformers.integrations.finegrained_fp8 import Fp8Quantize

    config = SimpleNamespace(weight_block_size=(16, 16), scale_fmt=None)
    found = Fp8Quantize(SimpleNamespace(quantization_config=config)).convert({"x": weight})
    scale = found["x_scale_inv"]
    grid = scale.double().repeat_interleave(16, 1).repeat_interleave(16, 2)
    return {"": found["x"], "_scale_inv": scale}, found["x"].double() * grid


def stacked_mxfp4(weight: Tensor) -> Written:
    """A stack ``[experts, c, r]``: each 32 inputs of an output share a power of two, and two of them a byte."""
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=torch.float64)
    groups = weight.transpose(1, 2).double().unflatten(-1, (-1, 32))  # [experts, r, c / 32, 32]
    power = (groups.abs().amax(-1).clamp(min=1e-9) / 6).log2().ceil()
    numbers = (groups / power.exp2()[..., None]).unsqueeze(-1).sub(values).abs().argmin(-1)
    held = (values[numbers] * power.exp2()[..., None]).flatten(2).transpose(1, 2)
    pairs = numbers.unflatten(-1, (-1, 2))
    blocks = (pairs[..., 0] | pairs[..., 1] << 4).to(torch.uint8)
    return {"_blocks": blocks, "_scales": (power + 127).to(torch.uint8)}, held


def _grouped(weight: Tensor, group: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers from 0 to ``most`` ``[r, c]``, and scales and zeros ``[r, groups]``, of groups of columns."""
    scales, zeros = [], []
    for n in range(int(group.max()) + 1):
        part = weight[:, group == n].double()
        low, high = part.amin(1).clamp(max=-1e-3), part.amax(1).clamp(min=1e-3)
        scale = ((high - low) / most).half()
        scales.append(scale)
        zeros.append((-low / scale.double()).round().clamp(1, most))
    scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1)
    numbers = (weight.double() / scale.double()[:, group] + zero[:, group]).round().clamp(0, most)
    return numbers, scale, zero


def _packed(numbers: Tensor, bits: int, axis: int) -> Tensor:
    """Whole numbers as words of 32 bits along an axis, the lowest bits first, without a gap."""
    lines = numbers if axis == 1 else numbers.T
    words = []
    for line in lines.tolist():
        whole = sum(number << bits * place for place, number in enumerate(line))
        count = -(-len(line) * bits // 32)
        found = [whole >> 32 * place & 0xFFFFFFFF for place in range(count)]
        words.append([word - (1 << 32) if word >> 31 else word for word in found])
    packed = torch.tensor(words, dtype=torch.int32)
    return (packed if axis == 1 else packed.T).contiguous()


def _group(**weights: Any) -> dict[str, Any]:
    return {"weights": {"type": "int", "symmetric": True, **weights}}


FP8_ACTIVATIONS = {"input_activations": {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}}
INT8_ACTIVATIONS = {"input_activations": {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}}
CHANNEL = {**_group(num_bits=8, type="float", strategy="channel"), **FP8_ACTIVATIONS}
TENSOR = {**_group(num_bits=8, type="float", strategy="tensor"), **FP8_ACTIVATIONS}
INT8 = {**_group(num_bits=8, strategy="channel"), **INT8_ACTIVATIONS}
INT4 = _group(num_bits=4, strategy="group", group_size=GROUP)
INT4_ZERO = _group(num_bits=4, strategy="group", group_size=GROUP, symmetric=False)
INT3 = _group(num_bits=3, strategy="channel")


def _compressed(scheme: dict[str, Any], fmt: str, bits: int = 8) -> tuple[dict[str, Any], Callable[[Tensor], Written]]:
    group = {"targets": ["Linear"], "format": None, **scheme}
    config = {
        "quant_method": "compressed-tensors",
        "format": fmt,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "quantization_status": "compressed",
    }
    return config, compressed(scheme, fmt, bits)


def _gptq(bits: int, shift: int, ordered: bool) -> tuple[dict[str, Any], Callable[[Tensor], Written]]:
    layout = {"checkpoint_format": "gptq_v2"} if not shift else {}
    return {"quant_method": "gptq", "bits": bits, "group_size": GROUP, **layout}, gptq(bits, shift, ordered)


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}

WRITERS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Written]]] = {
    "fp8": ({"quant_method": "fp8", "weight_block_size": [16, 16]}, block_fp8),
    "fp8-edge": ({"quant_method": "fp8", "weight_block_size": [48, 48]}, edged_fp8),
    "fp8-tensor": ({"quant_method": "fp8", "weight_block_size": None}, lambda weight: block_fp8(weight, None)),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, by_row),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, by_tensor),
    "ct-fp8-channel": _compressed(CHANNEL, "float-quantized"),
    "ct-fp8-tensor": _compressed(TENSOR, "float-quantized"),
    "ct-int8": _compressed(INT8, "int-quantized"),
    "ct-int4": _compressed(INT4, "pack-quantized", 4),
    "ct-int4-zero": _compressed(INT4_ZERO, "pack-quantized", 4),
    "ct-int3": _compressed(INT3, "pack-quantized", 3),
    "nf4": ({**BNB, "bnb_4bit_quant_type": "nf4"}, four_bits("nf4", False)),
    "nf4-nested": ({**BNB, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, four_bits("nf4", True)),
    "nf4-storage": ({**BNB, "bnb_4bit_quant_storage": "bfloat16"}, four_bits("nf4", False, torch.bfloat16)),
    "fp4": ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, four_bits("fp4", False)),
    "bnb-int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, eight_bits),
    "gptq": _gptq(4, 1, True),
    "gptq-order": _gptq(4, 1, False),
    "gptq-v2-8": _gptq(8, 0, True),
    "gptq-3": _gptq(3, 1, False),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}, awq),
}
"""By name: the quantization_config, and the writer."""

STACKS: dict[str, tuple[dict[str, Any], Callable[[Tensor], Written]]] = {
    "fp8-stack": ({"quant_method": "fp8", "weight_block_size": [16, 16]}, stacked_fp8),
    "mxfp4": ({"quant_method": "mxfp4"}, stacked_mxfp4),
}
"""The same for stacks of experts; what stands in their place begins with their whole name."""


def quantise(source: Path, target: Path, kind: str) -> Path:
    """Write ``target``, a plain checkpoint with its linears, or its stacks of experts, in few bits."""
    config, write = (WRITERS | STACKS)[kind]
    return _rewritten(source, target, kind, config, lambda weight: write(weight)[0])


def dequantise(source: Path, target: Path, kind: str) -> Path:
    """Write ``target``, the plain checkpoint with what :func:`quantise` makes, computed slowly and rounded once."""
    _, write = (WRITERS | STACKS)[kind]
    leaf = "" if kind in STACKS else "weight"
    return _rewritten(source, target, kind, None, lambda weight: {leaf: write(weight)[1].to(weight.dtype)})


def _rewritten(
    source: Path,
    target: Path,
    kind: str,
    config: dict[str, Any] | None,
    change: Callable[[Tensor], dict[str, Tensor]],
) -> Path:
    shutil.copytree(source, target)
    places: dict[str, str] = {}
    for shard in target.glob("*.safetensors"):
        made: dict[str, Tensor] = {}
        for name, tensor in load_file(shard).items():
            chosen = tensor.ndim == 3 if kind in STACKS else LINEAR.fullmatch(name)
            beginning = name if kind in STACKS else name.removesuffix("weight")
            parts = (
                {f"{beginning}{leaf}": value for leaf, value in change(tensor).items()} if chosen else {name: tensor}
            )
            made |= {key: value.contiguous() for key, value in parts.items()}
        save_file(made, shard, {"format": "pt"})
        places |= dict.fromkeys(made, shard.name)
    if (target / INDEX).exists():
        write_index(target, places)
    path = target / "config.json"
    said = json.loads(path.read_text())
    said |= {} if config is None else {"quantization_config": config}
    path.write_text(json.dumps(said, indent=2) + "\n")
    return target
