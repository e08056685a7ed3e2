"""How much memory a merge will take, forecast from its plan, and how it stays within its limits.

In memory at the same time are one unit of both models, the curvatures of its linears in both, the factor of the largest
curvature, the states of the paused samples, and the tensors that are prefetched or queued for writing. The forecast is
an upper bound: linears that share an input are counted separately, because only the samples show which do. Of several
ranks, each holds what its own samples have read, the sums that go through it, and a part of as many units as there are
ranks: the linears that it owns and has not merged yet, with their curvatures. That many wait only where factors take
longer than the samples.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.core.compromise import ROWS as COMBINED_ROWS
from hpa_merge.core.gathered import KEPT, triangle_bytes
from hpa_merge.core.hessian import CHUNK, DUAL_SHARE, kept_by_leaf
from hpa_merge.core.leaves import LEAVES
from hpa_merge.engine.hessian_files import needed_for
from hpa_merge.engine.machine import free_bytes, is_out_of_memory, peak_host_bytes
from hpa_merge.engine.observations import TOGETHER as SENT
from hpa_merge.engine.plan import Plan
from hpa_merge.engine.request import Limits
from hpa_merge.engine.sources import CalibrationSet
from hpa_merge.errors import ConfigError, ResourceError
from hpa_merge.outline import Outline, Unit

__all__ = ["Memory", "allot", "explaining", "hessian_bytes"]

HELD_STATES = 4
"""Tensors of ``[tokens, hidden]`` that a paused sample holds: its state, its residual, and two of its embeddings."""

LIBRARIES = 80 * 10**6
"""Bytes that torch and its kernels take when they are first used; measured on x86-64 with torch 2.13 for the CPU."""

QUEUE = 2**31
"""The most bytes that are prefetched of each model or queued for each OUT."""


@final
@dataclass(frozen=True)
class Memory:
    """How a merge uses memory, and an upper bound of its peak.

    Attributes:
        prefetch: the most bytes of each model that are prefetched.
        queued: the most bytes of each OUT that are queued for writing.
        offload: whether tokens wait on the host until their curvature is computed, one at a time.
        host: the peak on the host, in bytes.
        device: the peak on the CUDA device; None on the CPU.
    """

    prefetch: int
    queued: int
    offload: bool
    host: int
    device: int | None


def allot(
    plan: Plan,
    checkpoints: Sequence[Checkpoint],
    sets: Sequence[CalibrationSet],
    limits: Limits,
    keeping: bool = False,
    returning: Collection[Unit] = (),
) -> Memory:
    """The fastest way to use memory that stays within ``limits``.

    It does not change the result, with one exception: if linears share an input in some samples only, sums may be taken
    in another order. The modules and the libraries are loaded already and count as they are.

    Args:
        checkpoints: OLD and NEW.
        sets: the safety set with OLD, and the task set with NEW.
        keeping: whether Hessians are kept with the statistics.
        returning: the units whose curvatures are held until the end.

    Raises:
        ConfigError: no way stays within them.
    """
    device = plan.device
    cuda, queues, refusal = device.type == "cuda", 2 + len(plan.outs), ""
    base = peak_host_bytes() + LIBRARIES
    base += sum(value.nbytes for each in sets for sample in each.run.inputs for value in sample.values())
    base += sum(checkpoint.workspace for checkpoint in checkpoints)
    for offload in (False, True) if cuda else (False,):
        work, waiting = _work(plan, checkpoints[1], sets, offload, keeping=keeping, returning=returning)
        host, most_host = base + work, limits.device
        if cuda:
            largest = max(info.nbytes for checkpoint in checkpoints for info in checkpoint.tensors.values())
            host, most_host = base + waiting + 2 * largest, limits.host
        if cuda and limits.device is not None and work > limits.device:
            refusal = _refusal(f"{device}", "max_memory", work, limits.device)
        elif most_host is not None and host > most_host:
            refusal = _refusal("the host", "max_host_memory" if cuda else "max_memory", host, most_host)
        else:
            queue = min(QUEUE, _block(plan, checkpoints[1]))
            if most_host is not None:
                queue = min(queue, (most_host - host) // queues)
            return Memory(queue, queue, offload, host + queues * queue, work if cuda else None)
    raise ConfigError(refusal)


@contextmanager
def explaining(memory: Memory, device: torch.device) -> Iterator[None]:
    """Explain an allocation that fails in the block: the forecast was wrong, or another process took the memory.

    Raises:
        ResourceError: an allocation failed.
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
            f"{expected / 1e9:.1f} GB there{room}: set max_memory to a smaller limit and resume with --resume, or "
            "start again with fewer task_samples, a smaller max_length, or another device."
        ) from error


def _refusal(where: str, option: str, needed: int, limit: int) -> str:
    return (
        f"{option} is {limit / 1e9:.2f} GB and this merge may take {needed / 1e9:.2f} GB on {where}: "
        "raise it, or lower task_samples or max_length."
    )


def _work(
    plan: Plan,
    new: Checkpoint,
    sets: Sequence[CalibrationSet],
    offload: bool,
    *,
    keeping: bool,
    returning: Collection[Unit],
) -> tuple[int, int]:
    """Bytes that the arithmetic takes on its device, and bytes of the tokens that wait on the host.

    Args:
        keeping: whether Hessians are kept with the statistics.
        returning: the units whose curvatures are held until the end.
    """
    configs = [out.config for out in plan.outs]
    tokens = [each.run.tokens if each.runs else 0 for each in sets]
    itemsize = max(plan.old.dtype.itemsize, plan.new.dtype.itemsize)
    hidden = plan.new.hidden_size
    running = [each.run.own_tokens if each.runs else 0 for each in sets]
    states = HELD_STATES * sum(running, sum(each.run.other_tokens for each in sets)) * hidden * itemsize
    leaf, ranks = max(each.run.leaf_share for each in sets), sets[0].run.ranks
    whole = [
        count if any("inverse" in c.takes and each.purpose in c.sets for c in configs) else 0
        for each, count in zip(sets, tokens, strict=True)
    ]
    taking = [config for config in configs if "hessian" in config.takes]
    recalled = [each.run.tokens if taking and not each.runs else 0 for each in sets]  # Hessians, one at a time
    pooling = any(config.min_expert_tokens for config in configs)
    by_element = max((config.rule.bytes_per_value for config in configs), default=0)
    all_tokens = sum(tokens) + sum(recalled)
    units, waiting = 0, 0
    held_on, kept_on = _held(plan, new, tokens, returning, leaf)
    for unit in plan.new.units:
        pairs = plan.linears.get(unit, ())
        stored = [new.tensors[pair.new.key].shape for pair in pairs]
        shapes = [pair.new.shape(shape) for pair, shape in zip(pairs, stored, strict=True)]
        read = {pair.new.observers: (pair.new, c) for pair, (_, c) in zip(pairs, shapes, strict=True)}
        inputs = [(linear.routed, c, count) for linear, c in read.values() for count in tokens]
        gathered = [_gathered(count, c, itemsize, routed, leaf) for routed, c, count in inputs]
        kept = [int(count * routed) * c * itemsize for routed, c, count in inputs]
        pools = {linear.pool: (linear, c) for linear, c in read.values() if linear.pool and pooling}
        pooled = [
            (int(count * linear.routed * len(linear.pool)), c) for linear, c in pools.values() for count in tokens
        ]
        gathered += [_gathered(count, c, itemsize, 1.0, leaf) for count, c in pooled if count > DUAL_SHARE * c]
        factored = max((_factored(count, c, 4) for count, c in (*pooled, *((n, c) for _, c, n in inputs))), default=0)
        grown = any(pair.shared_rows is not None for pair in pairs)  # the rows of such a head are put together again
        fused = max((new.tensors[pair.new.key].nbytes for pair in pairs), default=0) * (2 if grown else 1)
        weights = _bytes_of(plan, unit) if any(each.runs for each in sets) else 2 * fused
        slices = [new.tensors[pair.new.key].nbytes for pair in pairs if pair.new.part is not None]
        stacks = len(configs) * max(slices, default=0)  # one for each OUT
        together = [*gathered, max(gathered, default=0)]  # Hessians that are written stay until the unit is done
        if offload:
            waiting = max(waiting, sum(kept))
            gathered = [max(gathered, default=0)]
        held = sum(max((_factored(count, c, 12) for _, c in shapes), default=0) for count in whole)
        if taking and shapes:
            most, *others = sorted({c for _, c in shapes}, reverse=True)
            factors = [most, *[others[0] if others else most] * (KEPT - 1)]  # of so many inputs they are held
            held = max(held, sum(_gathered(count, most, itemsize, 1.0, leaf) for count in recalled if count))
            held += sum(_combined(all_tokens, c, each.rule.bytes_per_square) for each in taking for c in factors)
        if keeping:
            gathered = together
        if ranks > 1:
            if not keeping:
                weights *= 2  # those that the owners have not merged yet, with their curvatures
                gathered = [sum(gathered), max(gathered, default=0)]
            sums = [_sum(routed * n, c, itemsize, n) for routed, c, n in inputs]
            arriving = max(min(SENT, sum(sums)), max(sums, default=0))
            own = [
                _gathered(count, c, itemsize, routed, leaf)
                if each.run.leads
                else _leaves(int(count * routed), c, itemsize, n, -(-LEAVES // ranks), each.run.leaf_share * n)
                for routed, c, _ in inputs[:: len(tokens)]
                for each, count, n in zip(sets, running, tokens, strict=True)
            ]
            gathered = [*gathered, (2 if plan.device.type == "cuda" else 1) * arriving, *own]
        chosen = by_element * max(map(math.prod, shapes), default=0)
        units = max(units, weights + stacks + sum(gathered) + held + max(factored, fused + chosen))
    return units + states + (0 if offload else held_on), waiting + (kept_on if offload else 0)


def _bytes_of(plan: Plan, unit: Unit) -> int:
    """What a unit takes in both models."""
    assert not isinstance(plan.old, Outline)  # samples run
    assert not isinstance(plan.new, Outline)
    return plan.old.nbytes(unit) + plan.new.nbytes(unit)


def _held(
    plan: Plan, new: Checkpoint, tokens: Sequence[int], returning: Collection[Unit], leaf: float
) -> tuple[int, int]:
    """Bytes of the curvatures that are held while other units run, and of their tokens."""
    itemsize = max(plan.old.dtype.itemsize, plan.new.dtype.itemsize)
    gathered = kept = 0
    for pair in plan.pairs:
        visits = len(pair.new.uses) * (2 if pair.new.last in returning else 1)  # they are not known before the run
        if visits > 1:
            _, columns = pair.new.shape(new.tensors[pair.new.key].shape)
            for count in tokens:
                gathered += _gathered(visits * count, columns, itemsize, pair.new.routed, leaf)
                kept += int(visits * count * pair.new.routed) * columns * itemsize
    return gathered, kept


def _leaf(tokens: float, columns: int, itemsize: int, set_tokens: int) -> float:
    """Bytes of what one leaf has gathered, of so many tokens, before it is added: tokens, or a Gram matrix too."""
    keep = kept_by_leaf(columns, itemsize, set_tokens)
    if tokens <= keep:
        return tokens * columns * itemsize
    if tokens <= CHUNK:  # which are multiplied when they are added
        return tokens * columns * (itemsize + 4)
    return 4 * columns * columns + columns * (max(keep, CHUNK) * itemsize + 4 * CHUNK)


def _leaves(tokens: int, columns: int, itemsize: int, set_tokens: int, most: int, largest: float) -> int:
    """Bytes of the leaves that one rank has gathered, at most so many, and of the one at hand.

    Args:
        set_tokens: the tokens of the whole set.
        largest: the tokens of the largest leaf, all of which may go to one expert.
    """
    keep = kept_by_leaf(columns, itemsize, set_tokens)
    multiplied = min(most, int(tokens / keep)) if largest > keep else 0
    kept = max(0.0, tokens - multiplied * keep) * columns * itemsize
    return int(multiplied * triangle_bytes(columns) + kept + _leaf(tokens, columns, itemsize, set_tokens))


def _sum(tokens: float, columns: int, itemsize: int, set_tokens: int) -> int:
    """Bytes of the sum of so many tokens of all leaves, as it travels."""
    whole = triangle_bytes(columns) + CHUNK * columns * itemsize
    if tokens > kept_by_leaf(columns, itemsize, set_tokens):  # one leaf may have all of them
        return whole
    return int(min(tokens * columns * itemsize, whole))


def _gathered(tokens: int, columns: int, itemsize: int, routed: float, leaf: float) -> int:
    """Bytes that a curvature holds: tokens, or a float32 Gram matrix and a chunk of tokens with a copy in float32.

    To a Gram matrix is added what one ``leaf`` has gathered, which has at most that share of the tokens.

    An expert, to which a part of the tokens is ``routed``, counts with the average over all experts. Either all read
    equally many tokens, or their numbers are distributed exponentially, so that some read enough for a Gram matrix;
    what takes more counts.
    """
    least, expected = DUAL_SHARE * columns, routed * tokens
    kept = expected * columns * itemsize
    if tokens <= least:
        return int(kept)
    more = _leaf(leaf * expected, columns, itemsize, tokens)
    if routed == 1.0:
        return int(4 * columns * columns + CHUNK * columns * (itemsize + 4) + more)
    waiting = min(CHUNK, max(expected - least, 0.0)) * itemsize
    gram = 4 * columns * columns + columns * (waiting + 4 * min(CHUNK, max(expected, least))) + more
    times = least / expected
    many = math.exp(-times)  # the share of the experts that read at least so many times the average
    return int(max(gram if times <= 1.0 else kept, many * gram + (1.0 - (1.0 + times) * many) * kept))


def _factored(tokens: int, columns: int, copies: int) -> int:
    """What a factor takes in addition: two matrices of the columns or, in the dual form, the tokens and two of theirs.

    Args:
        copies: bytes for each number of the tokens: 4 to factor, in float32; 12 for an inverse, which keeps float64
            too.
    """
    if not tokens:
        return 0
    if tokens <= DUAL_SHARE * columns:
        return copies * tokens * columns + 16 * tokens * tokens
    return 8 * columns * columns


def _combined(tokens: int, columns: int, squares: int) -> int:
    """Memory of a rule that takes Hessians: its factors and products; or all tokens in float64, twice.

    Args:
        tokens: of both sets.
        squares: bytes for each value of a ``c × c`` matrix.
    """
    rows = 24 * COMBINED_ROWS * columns
    if tokens <= DUAL_SHARE * columns:
        return max(squares * columns * columns if squares > 16 else 0, 16 * tokens * (columns + tokens)) + rows
    return squares * columns * columns + rows


def hessian_bytes(plan: Plan, new: Checkpoint, sets: Sequence[CalibrationSet]) -> int:
    """The most bytes that the Hessians of the sets take that are computed, if they are kept; the mean for an expert.

    Linears that read the same input share one, and only the samples show which do: each is counted here.
    """
    itemsize, total = max(plan.old.dtype.itemsize, plan.new.dtype.itemsize), 0
    for pair in plan.pairs:
        columns = pair.new.shape(new.tensors[pair.new.key].shape)[1]
        times = pair.new.routed * (2 if pair.new.pool else 1)  # an expert's own, or its pool's
        counts = (int(each.run.tokens * times) for each in sets if each.known is None)
        total += sum(needed_for(count, columns, itemsize) for count in counts)
    return total


def _block(plan: Plan, new: Checkpoint) -> int:
    """The weights of the largest block of NEW: as much is read or written while one block is computed."""
    blocks = [unit for unit in plan.new.units if unit.block is not None]
    return max((sum(new.tensors[key].nbytes for key in plan.new.keys_of(unit)) for unit in blocks), default=0)
