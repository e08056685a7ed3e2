"""Two plots of the results: what happens over the steps, and safety against task performance."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

MARKS = "osD^v<>PX*pdh"


def over_steps(methods: Mapping[str, Mapping[int, list[dict[str, Any]]]], path: Path) -> None:
    """Attack success rate and mean performance on the tasks so far after each step, means over the bases."""
    figure, (attacks, tasks) = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for number, (name, bases) in enumerate(methods.items()):
        style = {"label": name, "marker": MARKS[number % len(MARKS)], "color": _colour(number), "markersize": 4}
        steps = sorted({row["step"] for rows in bases.values() for row in rows})
        rate = [fmean(fmean(row["attacks"].values()) for row in _at(bases, step)) for step in steps]
        attacks.plot(steps, rate, linewidth=2.5 if name == "hpa" else 1.2, **style)
        done = [fmean(fmean(row["tasks"].values()) for row in _at(bases, step)) for step in steps[1:]]
        tasks.plot(steps[1:], done, linewidth=2.5 if name == "hpa" else 1.2, **style)
    attacks.set(xlabel="tuning step (0: the aligned model)", ylabel="attack success rate, %", ylim=(-3, 103))
    tasks.set(xlabel="tuning step", ylabel="mean accuracy on the tasks so far, %", ylim=(-3, 103))
    for axes in (attacks, tasks):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*attacks.get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def trade_off(runs: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path, headings: Mapping[str, str]) -> None:
    """Attack success against performance, with one standard deviation over the bases; lower right is better."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for axes, across in zip(panels, ("ap_over_steps", "just_learned"), strict=True):
        for number, (name, bases) in enumerate(runs.items()):
            x, y = ([figures[of] for figures in bases.values()] for of in (across, "masr_over_steps"))
            spread = {"xerr": stdev(x), "yerr": stdev(y)} if len(x) > 1 else {}
            style = {"fmt": MARKS[number % len(MARKS)], "color": _colour(number), "elinewidth": 0.7, "label": name}
            axes.errorbar(fmean(x), fmean(y), markersize=9 if name == "hpa" else 6, **style, **spread)
        axes.set(xlabel=f"{headings[across][:-2]}, %", ylabel=f"{headings['masr_over_steps'][:-2]}, %")
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _at(bases: Mapping[int, list[dict[str, Any]]], step: int) -> list[dict[str, Any]]:
    return [row for rows in bases.values() for row in rows if row["step"] == step]


def _colour(number: int) -> Any:
    return plt.get_cmap("tab20")(number * 2 % 20 + number // 10)
