"""Which tensor of OLD belongs to which of NEW, and which linears only one of the two has."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine.modelled import Modelled
from hpa_merge.errors import CheckpointError
from hpa_merge.report.words import shortened

__all__ = ["match", "set_aside"]


def match(
    old: Modelled, new: Modelled, in_old: Checkpoint, in_new: Checkpoint, included: Collection[str]
) -> dict[str, str]:
    """OLD's key for each of NEW's keys that both models know.

    Embeddings and excluded tensors may differ in shape, because they come from NEW. A head may differ in its rows. What
    one of the two models ties or computes itself has no counterpart there.

    Raises:
        CheckpointError: a tensor is missing in one of the two, is stored there as others, or has another shape.
    """
    key_in_old = {slot: key for key, slot in old.slots.items()}
    slots_in_new = set(new.slots.values())
    unmatched = [("NEW", "OLD", k) for k, s in new.slots.items() if s not in key_in_old and not old.knows(s[0])]
    unmatched += [("OLD", "NEW", k) for k, s in old.slots.items() if s not in slots_in_new and not new.knows(s[0])]
    for present_in, missing_in, key in unmatched[:1]:
        raise CheckpointError(
            f"{present_in}'s tensor {key} has no counterpart in {missing_in}: give two whole checkpoints of one model."
        )
    _check_stored_alike(old, new)
    keys = {key: key_in_old[slot] for key, slot in new.slots.items() if slot in key_in_old}
    at = {place: key for key, places in old.places.items() for place in places}
    shared = (linear.key for linear in new.linears.values() if linear.part is None and linear.key not in keys)
    keys |= {key: at[place] for key in shared for place in new.places[key][:1] if place in at}
    for key, old_key in keys.items():
        shapes = in_old.tensors[old_key].shape, in_new.tensors[key].shape
        resized = key in new.embeddings or (new.components.get(key) == "head" and _differ_in_rows(*shapes))
        if shapes[0] != shapes[1] and key in included and not resized:
            raise CheckpointError(
                f"{key} has shape {list(shapes[0])} in OLD and {list(shapes[1])} in NEW: give the checkpoints before "
                "and after tuning of one model, or take this tensor from NEW with --exclude."
            )
    return keys


def set_aside(metas: tuple[Modelled, Modelled], keys: Mapping[str, str], external: Collection[str]) -> Iterator[str]:
    """Leave out the linears that only one of the models has, because the other ties them; yields a sentence each."""
    old, new = metas
    read_only = {keys[key] for key in external if key in keys}
    in_old = {(linear.key, linear.part): linear.name for linear in old.linears.values()}
    pairs = {linear.name: in_old.get((keys.get(linear.key, ""), linear.part)) for linear in new.linears.values()}
    for meta, matched, role, other in (
        (new, {name for name, before in pairs.items() if before is not None}, "NEW", "OLD"),
        (old, {before for before in pairs.values() if before is not None}, "OLD", "NEW"),
    ):
        if alone := sorted(name for name in meta.linears.keys() - matched if meta.linears[name].key not in read_only):
            meta.leave_out(alone)
            yield f"{shortened(alone)}: a weight of its own in {role} and tied in {other}, so OUT has what NEW has."


def _check_stored_alike(old: Modelled, new: Modelled) -> None:
    """Raise CheckpointError for a parameter that OLD makes of other tensors than NEW, such as of single experts."""
    made: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    slots = [{slot: key for key, slot in meta.slots.items()} for meta in (old, new)]
    for side, here in enumerate(slots):
        for slot, key in here.items():
            made[slot[0]][side].append(key)
    for slot in sorted(slots[0].keys() ^ slots[1].keys(), key=str):
        before, after = made[slot[0]]
        if before and after:
            remedy = (
                "load both with from_pretrained, and save them with save_pretrained(…, save_original_format=False)"
                if 1 in (len(before), len(after))
                else "give the checkpoints before and after tuning of one model"
            )
            raise CheckpointError(
                f"{slot[0]} is made of {len(before)} of OLD's tensors, such as {before[0]}, and of {len(after)} of "
                f"NEW's, such as {after[0]}: {remedy}."
            )


def _differ_in_rows(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether two shapes differ only in the first axis, the vocabulary."""
    return len(old) == len(new) > 0 and old[1:] == new[1:]
