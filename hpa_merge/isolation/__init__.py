"""Child processes for what reads a stranger's content with libraries that we do not control.

A child has limits on computing time, total time and memory. Whatever it does, the parent gets an answer, an error of
:mod:`hpa_merge.errors`, or :class:`Stopped` with a reason in words. Children are forked from one process, the *host*,
which has imported the libraries and has read no stranger's content. Nothing here knows what a checkpoint is.

Read in this order: :mod:`child` (a child as its parent sees it), :mod:`keeping` (when there is a host), :mod:`host`
(what the host does), :mod:`serving` (what a child does), :mod:`memory` (how much is free), :mod:`messages` (what they
send to each other).

No process outlives its parent. The host kills a child whose parent closes it or ends in any way. The host ends when its
parent ends, because a socket closes. On Linux, a child ends with its host.
"""

from hpa_merge.isolation.child import Child, Limits, Stopped
from hpa_merge.isolation.keeping import kept
from hpa_merge.isolation.memory import free_memory

__all__ = ["Child", "Limits", "Stopped", "free_memory", "kept"]
