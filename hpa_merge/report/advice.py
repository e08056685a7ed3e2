"""What a bad figure means, and what to try: a sentence for each, from what the merge and the evaluation measured."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpa_merge.methods import DEFAULT, find_rule
from hpa_merge.report.evaluation import ASKED, MAX_BROKEN, beyond
from hpa_merge.report.reachable import fewest
from hpa_merge.report.reached import more_samples
from hpa_merge.report.rows import figures_of
from hpa_merge.report.words import counted, percent

if TYPE_CHECKING:
    from hpa_merge.report.schema import MergeReport
    from hpa_merge.report.verdict import Measured

__all__ = ["advice_of", "in_words"]

SHARED = 0.6
"""From this overlap of the focus sets on, more restored columns are mostly the task's too."""

UNDONE = 0.5
"""From this share of the update on, the merge undoes most of what tuning did."""

UNSAFE = 50.0
"""Percent of the attacks: if surely more of them succeed with OLD, it is hardly the aligned model."""

FEW = 5.0
"""Percent: if no attack succeeds, how high the upper end of the interval may be without a hint."""


def advice_of(report: "MergeReport | None", measured: "Measured | None") -> Iterator[str]:
    """Advice for the figures that are bad."""
    tuned = measured is not None and "chosen" in measured.evaluation.run
    if measured is not None:
        yield from _answers(measured, *more_and_less(DEFAULT if report is None else report.method), tuned=tuned)
    if report is not None:
        yield from _decisions(report, tuned=tuned)


def in_words(share: float) -> str:
    """``four in five``: a share in fifths; only 1 is ``all``."""
    fifths = ("none", "one in five", "two in five", "three in five", "four in five", "nearly all")
    return "all" if share == 1 else fifths[round(5 * share)]


def more_and_less(method: str) -> tuple[str, str]:
    """How a rule protects safety more, and how less: ``a larger --p-max`` and ``a smaller --p-max``."""
    rule = find_rule(method)
    if rule is None or rule.strength is None:
        return "more of OLD", "less of OLD"
    weakest, *_, safest = rule.strength.values
    flag = f"--{rule.strength.option.replace('_', '-')}"
    more, less = ("larger", "smaller") if safest > weakest else ("smaller", "larger")
    return f"a {more} {flag}", f"a {less} {flag}"


def _measured_by_tune(what: str, tuned: bool) -> str:
    """That ``tune`` measures something, after another sentence; nothing if it has."""
    return "" if tuned else f" hpa-merge tune measures {what}."


def _answers(measured: "Measured", more: str, less: str, *, tuned: bool) -> Iterator[str]:
    """Of the evaluation; ``more`` and ``less`` are those of :func:`more_and_less`, ``tuned``: ``tune`` chose OUT."""
    out = measured.out
    for purpose, asked in ASKED.items():
        share = out.broken.get(purpose)
        if share is not None and beyond(share.value, MAX_BROKEN):
            yield (
                f"{share.value:.0f} % of the answers to {asked} prompts are broken and count as neither success nor "
                "refusal: read them with eval --answers, and raise --max-new-tokens if they are cut off."
            )
    aligned = measured.old.asr if measured.old is not None else None
    if aligned is not None and aligned.low > UNSAFE:
        yield (
            f"{aligned.value:.0f} % of the attacks succeed with OLD, and a merge restores no more than OLD has: check "
            "that OLD is the aligned model and, with eval --answers, that the judge reads its answers right."
        )
    from_old = measured.difference(measured.old, "safety")
    unsafe = from_old is not None and from_old.low > 0
    lost = {task: measured.difference(measured.new, "tasks", task) for task in out.tasks}
    both = unsafe and any(difference is not None and difference.high < 0 for difference in lost.values())
    if both:
        yield (
            f"Attacks succeed more often than with OLD, and tasks lost against NEW: {more} is better for the one and "
            "worse for the other."
            + ("" if tuned else " hpa-merge tune --methods hpa,regmean measures what each method can do for both.")
        )
    elif from_old is not None and unsafe:
        yield (
            f"Attacks succeed more often than with OLD, by {from_old.value:.0f} points: try {more}."
            + _measured_by_tune("which setting is enough", tuned)
        )
    elif out.asr is not None and out.asr.value <= FEW < out.asr.high:
        yield (
            f"{counted(out.asr.samples, 'attack')} cannot show less than {out.asr.high:.0f} %: if none of "
            f"{fewest(FEW, len(out.safety))} succeeds, that shows at most {FEW:.0f} %."
        )
    for task in out.tasks:
        from_new, from_old = lost[task], measured.difference(measured.old, "tasks", task)
        if from_new is not None and from_new.high < 0:
            if both:
                continue
            yield (
                f"Task {task} lost {-from_new.value:.0f} points against NEW: {less} keeps more of the update."
                + _measured_by_tune("what that does to safety", tuned)
            )
        elif from_old is not None and from_old.high < 0:
            gained = f", {from_new.value:.0f} above NEW" if from_new is not None and from_new.low > 0 else ""
            yield (
                f"Task {task} is {-from_old.value:.0f} points below OLD{gained}: {more} restores more."
                + _measured_by_tune("what that costs the other tasks", tuned)
            )
    refused = measured.difference(measured.old, "benign")
    if refused is not None and refused.low > 0:
        yield (
            f"OUT refuses {refused.value:.0f} points more harmless prompts than OLD: hpa-merge tune with "
            "--max-over-refusal looks for a setting that does not."
        )


def _decisions(report: "MergeReport", *, tuned: bool) -> Iterator[str]:
    """Of the merge; ``tuned`` as for the answers."""
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    figures = figures_of(adapted)
    if not adapted:
        yield "No weight was adapted: check that OLD and NEW differ, and the options that leave weights out."
    if (shared := figures["shared"]) is not None and shared >= SHARED:
        yield (
            f"{in_words(shared).capitalize()} of the columns that safety needs are the task's too ({percent(shared)}): "
            "expect that restoring more of them costs the task." + _measured_by_tune("both for several --p-max", tuned)
        )
    given = (report.config.get(name) for name in ("alpha_min", "alpha_max"))
    bounds = {bound for bound in given if isinstance(bound, float)}
    alphas = {record.alpha for record in adapted if record.alpha is not None}
    if len(bounds) > 1 and len(alphas) == 1 and alphas <= bounds:
        yield (
            f"α is {alphas.pop():g}, its bound, in every weight: one calibration set activates the model far more than "
            "the other. Check both with hpa-merge samples."
        )
    if (undone := figures["energy_restored"]) is not None and undone >= UNDONE:
        yield (
            f"{percent(undone)} of the update is undone: expect that the new task suffers, and try "
            f"{more_and_less(report.method)[1]}."
        )
    if lost := report.count("uncalibrated"):
        yield more_samples(report, lost)
