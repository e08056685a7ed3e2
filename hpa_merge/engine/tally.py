"""What became of a calibration set: how many samples of which shape, what was cut, dropped and left out."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from hpa_merge.records import Media, Sample, Turn
from hpa_merge.records.sampling import SampleSet
from hpa_merge.report.records import CalibrationRecord

if TYPE_CHECKING:
    from hpa_merge.calibration import Encoded
    from hpa_merge.ranks import Group

__all__ = ["Tally"]

TURNS = 6
"""The most turns of a conversation that its shape names one by one."""


@final
class Tally:
    """Counts the samples of one set.

    Attributes:
        template: the chat template that wrote them, in words.
        shapes: how many samples have which shape.
    """

    def __init__(self, purpose: str, given: SampleSet) -> None:
        """
        Args:
            purpose: ``safety`` or ``task``.
            given: what was drawn of the file.
        """
        self.template = ""
        self.shapes: Counter[str] = Counter()
        self._purpose = purpose
        self._given = given
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._dropped: Counter[str] = Counter()
        self._noted: dict[str, list[str]] = {}

    def drop(self, why: str) -> None:
        """Count a sample that is not used."""
        self._dropped[why] += 1

    def take(self, sample: Sample, made: "Encoded") -> None:
        """Count a sample that is used; what a decoder reads apart from the encoder counts as tokens too."""
        names = ("input_ids", "decoder_input_ids")
        self._counts["samples"] += 1
        self._counts["tokens"] += sum(made.inputs[name].numel() for name in names if name in made.inputs)
        self._counts["turns"] += len(sample.turns)
        self._counts["answers"] += sample.turns[-1:] != () and sample.turns[-1].role == "assistant"
        self._counts["truncated"] += made.cut > 0
        self._counts.update(f"{media.kind}s" for media in sample.media)
        self._counts["frames"] += made.frames
        self._seconds += made.seconds
        self.shapes[_shape(sample)] += 1
        for note in made.notes:
            self._noted.setdefault(note, []).append(sample.source)

    def join(self, group: "Group", *, backwards: bool) -> None:
        """Count what every rank has counted, as one process would; raises as :meth:`Group.gather`.

        Args:
            backwards: whether the last rank has the first samples.
        """
        own = (self.template, self.shapes, self._counts, self._seconds, self._dropped, self._noted)
        counted = group.gather(own)[:: -1 if backwards else 1]
        templates, shapes, counts, seconds, dropped, noted = zip(*counted, strict=True)
        self.template = next(filter(None, templates), "")
        self.shapes, self._counts, self._dropped = (sum(each, Counter()) for each in (shapes, counts, dropped))
        self._seconds, self._noted = sum(seconds), {}
        for note, sources in (item for each in noted for item in each.items()):
            self._noted.setdefault(note, []).extend(sources)

    def state(self) -> dict[str, Any]:
        """What was counted, in JSON types; :meth:`restored` is the inverse."""
        return {
            "template": self.template,
            "shapes": dict(self.shapes),
            "counts": dict(self._counts),
            "seconds": self._seconds,
            "dropped": dict(self._dropped),
            "noted": self._noted,
        }

    @classmethod
    def restored(cls, purpose: str, given: SampleSet, state: dict[str, Any]) -> "Tally":
        """The tally of the same samples in an earlier run.

        Raises:
            KeyError, TypeError, ValueError: :meth:`state` does not give this.
        """
        tally = cls(purpose, given)
        tally.template, tally._seconds = str(state["template"]), float(state["seconds"])
        tally.shapes, tally._counts, tally._dropped = (
            Counter({str(name): int(count) for name, count in state[key].items()})
            for key in ("shapes", "counts", "dropped")
        )
        tally._noted = {str(note): [str(source) for source in sources] for note, sources in state["noted"].items()}
        return tally

    @property
    def tokens(self) -> int:
        """Tokens of the samples that are used."""
        return self._counts["tokens"]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, a sentence each."""
        return tuple(
            f"{len(sources)} of the {self._purpose} samples, the first of which is {sources[0]}: {note}."
            for note, sources in self._noted.items()
        )

    def record(self, file: str | Path) -> CalibrationRecord:
        """What was used of the calibration file."""
        names = ("samples", "tokens", "images", "videos", "frames", "audios", "turns", "answers", "truncated")
        counts: dict[str, Any] = {name: self._counts[name] for name in names}
        return CalibrationRecord(
            file=str(file),
            available=self._given.available,
            passed_over=self._given.passed_over,
            dropped=dict(sorted((Counter(self._given.dropped) + self._dropped).items())),
            template=self.template,
            seconds=round(self._seconds, 3),
            **counts,
        )


def _shape(sample: Sample) -> str:
    """``system, user with 1 image, assistant``; of a long conversation the first turns and how many there are."""
    if sample.input_ids:
        return "token ids"
    if sample.text is not None:
        return "text"
    turns = [_turn(turn) for turn in sample.turns]
    if len(turns) > TURNS:
        turns = [*turns[: TURNS - 1], f"… {len(turns)} turns"]
    return ", ".join(turns) + "; tools" * bool(sample.tools)


def _turn(turn: Turn) -> str:
    media = Counter(part.kind for part in turn.parts if isinstance(part, Media))
    has = [f"{count} {kind}{'s'[: count != 1]}" for kind, count in media.items()]
    has += ["reasoning"] * bool(turn.reasoning) + ["tool calls"] * bool(turn.tool_calls)
    return f"{turn.role} with {', '.join(has)}" if has else turn.role
