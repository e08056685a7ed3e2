"""How much memory a merge is going to take, from its plan, and how it is to keep within what it is allowed.

In memory at once are one unit of both models, the curvatures of its linears in both, the factorisation of the largest
of them, what the paused samples hold, and what is prefetched or waits to be written. The forecast is an upper bound:
linears that share an input are counted separately, because which do is known only when the samples run.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.core.compromise import ROWS as COMBINED_ROWS
from hpa_merge.core.hessian import CHUNK, DUAL_SHARE
from hpa_merge.engine.calibration_run import CalibrationRun
from hpa_merge.engine.machine import free_bytes, is_out_of_memory, peak_host_bytes
from hpa_merge.engine.plan import Plan
from hpa_merge.errors import ConfigError, ResourceError

__all__ = ["Limits", "Memory", "allot", "explaining"]

HELD_STATES = 4
"""Tensors of ``[tokens, hidden]`` that a paused sample holds: its state, its residual, and two of its embeddings."""

LIBRARIES = 80 * 10**6
"""Bytes that torch and its kernels take when they are first used; measured on x86-64 with torch 2.13 for the CPU."""

QUEUE = 2**31
"""Bytes that are prefetched of each model, or wait to be written, at most."""


@final
@dataclass(frozen=True)
class Limits:
    """Bytes that a merge may take: ``device`` where the arithmetic runs, ``host`` next to a CUDA device; None: any."""

    device: int | None = None
    host: int | None = None


@final
@dataclass(frozen=True)
class Memory:
    """How a merge uses memory, and what it takes of it at the peak, at most.

    Attributes:
        prefetch: bytes of each model that are read and not yet asked for.
        queued: bytes of each OUT that wait to be written.
        offload: whether tokens wait on the host until their curvature is computed, one at a time.
        host: bytes at the peak.
        device: the same on the CUDA device; None on the CPU, where everything is the host's.
    """

    prefetch: int
    queued: int
    offload: bool
    host: int
    device: int | None


def allot(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    runs: Sequence[CalibrationRun],
    needed: Sequence[bool],
    device: torch.device,
    configs: Sequence[HPAConfig],
    limits: Limits,
) -> Memory:
    """The fastest way to use memory that stays within ``limits``.

    It does not change the result, except that sums may be taken in another order if linears share an input in some
    samples only. The modules and the libraries are loaded already and count as they are.

    Args:
        needed: whether the samples of each run have to run; otherwise its statistics are known.
        configs: the options of each OUT.

    Raises:
        ConfigError: no way is within them.
    """
    cuda, queues, refusal = device.type == "cuda", 2 + len(configs), ""
    base = peak_host_bytes() + LIBRARIES + sum(_bytes(sample) for run in runs for sample in run.inputs)
    base += sum(checkpoint.overlay.workspace for checkpoint in checkpoints if checkpoint.overlay is not None)
    for offload in (False, True) if cuda else (False,):
        work, waiting = _work(plan, checkpoints, runs, needed, configs, offload)
        host, most_host = base + work, limits.device
        if cuda:
            largest = max(info.nbytes for checkpoint in checkpoints for info in checkpoint.tensors.values())
            host, most_host = base + waiting + 2 * largest, limits.host
        if cuda and limits.device is not None and work > limits.device:
            refusal = _refusal(f"{device}", "max_memory", work, limits.device)
        elif most_host is not None and host > most_host:
            refusal = _refusal("the host", "max_host_memory" if cuda else "max_memory", host, most_host)
        else:
            queue = min(QUEUE, _block(plan, checkpoints))
            if most_host is not None:
                queue = min(queue, (most_host - host) // queues)
            return Memory(queue, queue, offload, host + queues * queue, work if cuda else None)
    raise ConfigError(refusal)


@contextmanager
def explaining(memory: Memory, device: torch.device) -> Iterator[None]:
    """Explain an allocation that fails in the block, against the forecast or because another process takes the memory.

    Raises:
        ResourceError: one failed.
    """
    try:
        yield
    except BaseException as error:
        if not is_out_of_memory(error):
            raise
        expected = memory.host if memory.device is None else memory.device
        free = free_bytes(device)
        room = "" if free is None else f" and {free / 1e9:.1f} GB are free now"
        raise ResourceError(
            f"the memory of {'the host' if memory.device is None else device} is full: this merge takes up to "
            f"{expected / 1e9:.1f} GB there{room}: set max_memory to what may be taken and resume with --resume, or "
            "begin anew with fewer task_samples, a smaller max_length, or another device."
        ) from error


def _refusal(where: str, option: str, needed: int, limit: int) -> str:
    return (
        f"{option} is {limit / 1e9:.2f} GB and this merge may take {needed / 1e9:.2f} GB on {where}: "
        "raise it, or lower task_samples or max_length."
    )


def _work(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    runs: Sequence[CalibrationRun],
    needed: Sequence[bool],
    configs: Sequence[HPAConfig],
    offload: bool,
) -> tuple[int, int]:
    """Bytes where the arithmetic runs, and of the tokens that wait on the host."""
    tokens = [run.tokens if is_needed else 0 for run, is_needed in zip(runs, needed, strict=True)]
    itemsize = plan.new.model.dtype.itemsize
    hidden = getattr(plan.new.model.config.get_text_config(), "hidden_size", 0)
    states = HELD_STATES * sum(tokens) * hidden * itemsize
    whole = [
        count if any(c.whole_inverse and run.purpose in c.sets for c in configs) else 0
        for run, count in zip(runs, tokens, strict=True)
    ]
    both = any(config.rule.hessians for config in configs)
    by_element = max((config.rule.bytes_per_value for config in configs), default=0)
    units, waiting = 0, 0
    for unit in plan.new.units:
        pairs = plan.linears.get(unit, ())
        stored = [checkpoints[1].tensors[pair.new.key].shape for pair in pairs]
        columns = [pair.new.shape(shape)[1] for pair, shape in zip(pairs, stored, strict=True)]
        inputs = [(pair.new.routed, c, count) for pair, c in zip(pairs, columns, strict=True) for count in tokens]
        gathered = [_gathered(count, c, itemsize, routed) for routed, c, count in inputs]
        kept = [int(count * routed) * c * itemsize for routed, c, count in inputs]
        factored = max((_factored(count, c) for _, c, count in inputs), default=0)
        grown = any(pair.shared_rows is not None for pair in pairs)  # such a head is put together once more
        fused = max((math.prod(shape) * itemsize for shape in stored), default=0) * (2 if grown else 1)
        weights = plan.old.nbytes(unit) + plan.new.nbytes(unit) if any(needed) else 2 * fused
        slices = [shape for pair, shape in zip(pairs, stored, strict=True) if pair.new.part is not None]
        stacks = len(configs) * max((math.prod(shape) * itemsize for shape in slices), default=0)  # one of each OUT
        if offload:
            waiting = max(waiting, sum(kept))
            gathered = [max(gathered, default=0)]
        held = sum(max((_inverted(count, c) for c in columns), default=0) for count in whole)
        if both:
            held = max(held, max((_combined(sum(tokens), c) for c in columns), default=0))
        chosen = by_element * max(
            (math.prod(pair.new.shape(s)) for pair, s in zip(pairs, stored, strict=True)), default=0
        )
        units = max(units, weights + stacks + sum(gathered) + held + max(factored, fused + chosen))
    return units + states, waiting


def _gathered(tokens: int, columns: int, itemsize: int, routed: float) -> int:
    """What a curvature holds: tokens, or a float32 Gram matrix and a chunk of tokens, once more in float32.

    Of an expert, to which a part of the tokens is ``routed``, what it holds on average however unequal the parts are:
    its tokens, and its share of the Gram matrices of those experts that get enough of them.
    """
    if routed == 1.0:
        if tokens <= DUAL_SHARE * columns:
            return tokens * columns * itemsize
        return 4 * columns * columns + CHUNK * columns * (itemsize + 4)
    expected = routed * tokens
    grams = min(1.0, expected / (DUAL_SHARE * columns)) if tokens > DUAL_SHARE * columns else 0.0
    return int(expected * columns * itemsize + grams * (4 * columns * columns + CHUNK * columns * (itemsize + 4)))


def _factored(tokens: int, columns: int) -> int:
    """What a factorisation takes beside that: the tokens in float32 and two matrices of theirs, or two of columns."""
    if not tokens:
        return 0
    if tokens <= DUAL_SHARE * columns:
        return 4 * tokens * columns + 16 * tokens * tokens
    return 8 * columns * columns


def _inverted(tokens: int, columns: int) -> int:
    """What an inverse holds: its factor and a copy that the solver makes, and the tokens in float64 if it is dual."""
    if not tokens:
        return 0
    if tokens <= DUAL_SHARE * columns:
        return 12 * tokens * columns + 16 * tokens * tokens
    return 8 * columns * columns


def _combined(tokens: int, columns: int) -> int:
    """What the sum of two Hessians holds: its factor and a symmetric half of one; or all tokens in float64, twice."""
    rows = 24 * COMBINED_ROWS * columns
    if tokens <= DUAL_SHARE * columns:
        return 16 * tokens * columns + 16 * tokens * tokens + rows
    return 16 * columns * columns + rows


def _block(plan: Plan, checkpoints: Sequence[Checkpoint]) -> int:
    """The weights of the largest block of NEW: so much has to be read or written while one is computed."""
    blocks = [unit for unit in plan.new.units if unit.block is not None]
    return max(
        (sum(checkpoints[1].tensors[key].nbytes for key in plan.new.keys_of(unit)) for unit in blocks), default=0
    )


def _bytes(inputs: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in inputs.values())
