"""Draws the README's picture of the demo's result: ``python docs/picture.py demo/evaluation.json docs/demo.svg``.

The file is what ``hpa-merge demo demo/`` has measured. The colours follow the light or dark setting of the reader.
"""

import sys
from html import escape
from pathlib import Path

from hpa_merge.report.evaluation import Evaluation, Figure, read_evaluation

WIDTH, HEIGHT, COLUMN, BAR = 780, 190, 250, 120
"""The picture, a measure in it, and a bar of 100 percent, in pixels."""

STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;fill:#0f172a}"
    ".soft{fill:#475569}.strong{font-weight:650}.track{fill:#e8edf3}.bar{fill:#64748b}.out{fill:#c8690a}"
    "@media(prefers-color-scheme:dark){text{fill:#e6ebf3}.soft{fill:#a9b6c9}.track{fill:#24314a}.bar{fill:#8fa0b8}"
    ".out{fill:#f59e3f}}"
)
"""The colours of the report page."""

ROLES = ("aligned", "tuned", "repaired")


def draw(evaluation: Evaluation) -> str:
    """OLD, NEW and OUT side by side: the attacks that succeed, and each task."""
    models = evaluation.models
    measures = [("Attacks that succeed", "less is better", [model.asr for model in models])]
    for task in models[0].tasks:
        measures.append((f"Right answers: {task}", "more is better", [model.tasks.get(task) for model in models]))
    said = "; ".join(f"{title}: {', '.join(map(_value, figures))}" for title, _, figures in measures)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-labelledby="title description">',
        '<title id="title">The demo: a model after alignment, after tuning, and after hpa-merge</title>',
        f'<desc id="description">Percent with the {", ".join(ROLES)} model. {escape(said)}.</desc>',
        f"<style>{STYLE}</style>",
    ]
    for number, (title, better, figures) in enumerate(measures):
        left = 10 + number * (COLUMN + 10)
        rows.append(f'<text class="strong" x="{left}" y="24">{escape(title)}</text>')
        rows.append(f'<text class="soft" x="{left}" y="43">percent, {better}</text>')
        for place, (role, figure) in enumerate(zip(ROLES, figures, strict=True)):
            rows += _row(left, 66 + 40 * place, role, figure)
    return "\n".join([*rows, "</svg>"]) + "\n"


def _row(left: int, top: int, role: str, figure: Figure | None) -> list[str]:
    """A name, a bar and its value."""
    last = role == ROLES[-1]
    strong = ' class="strong"' if last else ""
    width = BAR * (figure.value if figure else 0.0) / 100
    return [
        f'<text{strong} x="{left}" y="{top + 16}">{role}</text>',
        f'<rect class="track" x="{left + 66}" y="{top}" width="{BAR}" height="22" rx="3"/>',
        f'<rect class="{"out" if last else "bar"}" x="{left + 66}" y="{top}" width="{width:.1f}" height="22" rx="3"/>',
        f'<text class="strong" x="{left + 66 + BAR + 8}" y="{top + 16}">{_value(figure)}</text>',
    ]


def _value(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.value:.0f}"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(read_evaluation(sys.argv[1])), encoding="utf-8")
