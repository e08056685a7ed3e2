"""The ranks of one run: processes that share its samples, its reading and its factoring, over torch.distributed.

Every exchange begins with a round of small objects, in which a rank that has failed says so. So an error of one rank
ends all of them with the same sentence, and none waits for one that will not come. Every rank makes the same exchanges
in the same order, from one thread. No sum is taken on the way: what is exchanged arrives as it was sent.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, final

import torch
import torch.distributed as dist
from torch import Tensor

import hpa_merge.errors
from hpa_merge.errors import HPAError, RankError

__all__ = ["Group", "Parcel"]

Value = TypeVar("Value")


@final
@dataclass(frozen=True, eq=False)
class Parcel:
    """Tensors that go from one rank to another.

    Attributes:
        receiver: a rank; if it is the sender, the tensors stay where they are.
        note: what they are: small, and sent too.
        tensors: of any shapes and dtypes.
    """

    receiver: int
    note: Any
    tensors: tuple[Tensor, ...]


@final
class Group:
    """The ranks of this run as one of them sees it. :meth:`alone` is the only rank, and exchanges nothing.

    Attributes:
        rank: the number of this process, from 0. Rank 0 prints, and publishes OUT.
        size: the number of ranks.
        sent: bytes of tensors that this rank has sent so far.
    """

    def __init__(self, rank: int, size: int) -> None:
        """Use :meth:`alone` or :meth:`current`."""
        self.rank, self.size = rank, size
        self.sent = 0
        self._failed = False

    @classmethod
    def alone(cls) -> "Group":
        """The group of a single process, which needs no torch.distributed."""
        return cls(0, 1)

    @classmethod
    def current(cls) -> "Group":
        """The group that this process has joined with ``init_process_group``; alone if it has joined none.

        The default group needs a backend for the CPU (gloo) and, with CUDA devices, one for these (``cpu:gloo,
        cuda:nccl``).
        """
        if not dist.is_available() or not dist.is_initialized():
            return cls.alone()
        return cls(dist.get_rank(), dist.get_world_size())

    @classmethod
    @contextmanager
    def taking_part(cls) -> Iterator["Group"]:
        """The :meth:`current` group; an error that ends the block is told to the other ranks, which end with it."""
        group = cls.current()
        try:
            yield group
        except BaseException as error:
            group.fail(error)
            raise

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """The small ``value`` of every rank, by rank.

        Raises:
            HPAError: another rank has failed; the error is its own.
            RankError: a rank has failed in another way, or is gone.
        """
        if self.size == 1:
            return [value]
        found = self._round((value, None))
        failed = next((error for _, error in found if error is not None), None)
        if failed is not None:
            self._failed = True
            raise _error_of(*failed)
        return [value for value, _ in found]

    def barrier(self) -> None:
        """Wait until every rank is here; raises as :meth:`gather`."""
        self.gather(None)

    def least(self, place: int | None) -> int | None:
        """The smallest ``place`` of any rank; None if every rank gives None. Raises as :meth:`gather`."""
        return min((each for each in self.gather(place) if each is not None), default=None)

    def fail(self, error: BaseException) -> None:
        """Tell the others, at their next exchange, that this rank ends with ``error``; never raises.

        Nothing happens if the error came from another rank, or if the group has failed already. An interruption may
        have come within an exchange, of which the others would take the next one for a part: they notice that this
        process ends.
        """
        if self.size == 1 or self._failed:
            return
        self._failed = True
        if not isinstance(error, Exception):
            return
        name, text = type(error).__name__, str(error)
        if not isinstance(error, HPAError):
            name, text = "RankError", _sentence(self.rank, self.size, f"{name}: {text}" if text else name)
        try:
            self._round((None, (name, text)))
        except RankError:
            return  # the others are gone

    def join(self, share: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The ``share`` of every rank, by rank, on its device.

        Args:
            share: ``[sizes[rank]]``, of one dtype on all ranks.
            sizes: the number of elements of every rank's share.

        Raises:
            HPAError: as :meth:`gather`.
        """
        if self.size == 1:
            return [share]
        if share.device.type == "cpu":
            return self._exchange(share, sizes)
        longest = max(sizes)
        padded = share
        if len(share) < longest:
            padded = share.new_empty(longest)
            padded[: len(share)] = share
        found = list(share.new_empty(self.size, longest).unbind())
        self.barrier()  # when nothing is left that can fail here alone
        self._sending(lambda: dist.all_gather(found, padded.contiguous()), longest * share.itemsize)
        return [each[:size] for each, size in zip(found, sizes, strict=True)]

    def _exchange(self, share: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """:meth:`join` by a message between any two ranks, because gloo's own gathering copies everything twice."""
        found = [share if rank == self.rank else share.new_empty(size) for rank, size in enumerate(sizes)]
        others = [rank for rank in range(self.size) if rank != self.rank]
        operations = [dist.P2POp(dist.irecv, found[rank], rank) for rank in others if sizes[rank]]
        operations += [dist.P2POp(dist.isend, share.contiguous(), rank) for rank in others if len(share)]
        self.barrier()
        if operations:
            self._sending(lambda: [work.wait() for work in dist.batch_isend_irecv(operations)], share.nbytes)
        return found

    def deliver(self, parcels: Sequence[Parcel], device: torch.device) -> list[Parcel]:
        """Send every parcel to its receiver. Every rank makes this call, also one that sends nothing.

        Args:
            parcels: those that this rank sends.
            device: where received tensors go.

        Returns:
            The parcels for this rank, by sender, in the order in which each has sent them.

        Raises:
            HPAError: as :meth:`gather`.
        """
        if self.size == 1:
            return list(parcels)
        labels = [(p.receiver, p.note, [(each.shape, each.dtype) for each in p.tensors]) for p in parcels]
        arriving, operations, sent = [], [], 0
        for sender, theirs in enumerate(self.gather(labels)):
            if sender == self.rank:
                arriving += [parcel for parcel in parcels if parcel.receiver == self.rank]
                continue
            for note, kinds in ((note, kinds) for receiver, note, kinds in theirs if receiver == self.rank):
                tensors = tuple(torch.empty(shape, dtype=dtype, device=device) for shape, dtype in kinds)
                operations += [dist.P2POp(dist.irecv, each, sender) for each in tensors if each.numel()]
                arriving.append(Parcel(self.rank, note, tensors))
        for parcel in (parcel for parcel in parcels if parcel.receiver != self.rank):
            tensors = tuple(each.to(device).contiguous() for each in parcel.tensors)
            operations += [dist.P2POp(dist.isend, each, parcel.receiver) for each in tensors if each.numel()]
            sent += sum(each.nbytes for each in tensors)
        self.barrier()  # when nothing is left that can fail here alone
        if operations:
            self._sending(lambda: [work.wait() for work in dist.batch_isend_irecv(operations)], sent)
        return arriving

    def _round(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        self._sending(lambda: dist.all_gather_object(found, value), 0)
        return found

    def _sending(self, exchange: Callable[[], Any], nbytes: int) -> None:
        """Make an exchange; raises RankError if a rank is gone."""
        try:
            exchange()
        except RuntimeError as error:  # gloo and NCCL raise no other for a connection that is lost
            self._failed = True
            reason = re.sub(r"\[[^][]*\]:?[0-9]*", "", str(error)).strip().partition(". ")[0]  # without places in code
            raise RankError(_sentence(None, self.size, f"{' '.join(reason.split()):.100}")) from error
        self.sent += nbytes


def _sentence(rank: int | None, size: int, reason: str) -> str:
    """The error of a rank; None: of one that said nothing."""
    which = f"one of the {size} processes of this run has ended or does not answer"
    if rank is not None:
        which = f"process {rank + 1} of {size} of this run has ended"
    return f"{which} ({reason}): read its own output, and run the same command with --resume."


def _error_of(name: str, text: str) -> HPAError:
    """The error of another rank."""
    kind = getattr(hpa_merge.errors, name, RankError)
    return kind(text) if isinstance(kind, type) and issubclass(kind, HPAError) else RankError(text)
