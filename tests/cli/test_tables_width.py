"""The tables of the commands in terminals of any width: no line is too long, and no figure is cut."""

from collections.abc import Callable

import pytest
from report_samples import mixture, results
from rich.cells import cell_len
from rich.console import Console, RenderableType

from hpa_merge.cli.tables.comparing import comparison, groups_table, history_table
from hpa_merge.cli.tables.evaluation import curve_table, evaluation_table
from hpa_merge.cli.tables.layers import layers_table
from hpa_merge.cli.tables.layout import apart, facts_table, plain_table
from hpa_merge.cli.tables.merging import merge_summary, sweep_summary
from hpa_merge.report.evaluation import Bounds
from hpa_merge.report.inspecting import Named

REPORT = mixture(2, 3)
NAMED = Named("runs/march-tuned", "march-tuned", REPORT, REPORT.linears)
FOUND = results("p_max=30,p_min=10")
OLD, NEW, OUT = FOUND.models
SETTINGS = {f"p_max={share},p_min=1.7": OUT for share in (5, 10)} | {"p_max=30,p_min=10": OUT}
TWO = {f"method={method},strength={n}": OUT for method in ("hpa", "regmean") for n in (1, 3)}
METHODS = {name: name.partition(",")[0].removeprefix("method=") for name in TWO}

TABLES: dict[str, Callable[[], RenderableType]] = {
    "a merge": lambda: merge_summary(REPORT, "runs/march-tuned"),
    "a sweep": lambda: sweep_summary({"p_max=5": REPORT, "p_max=10,selection=safety": REPORT}, "runs"),
    "by projection": lambda: groups_table(NAMED, "projection"),
    "side by side": lambda: comparison([NAMED, NAMED]),
    "linears": lambda: layers_table(NAMED),
    "rounds": lambda: history_table(NAMED),
    "an evaluation": lambda: evaluation_table(FOUND),
    "a tuning of several methods": lambda: curve_table({"OLD": OLD, "NEW": NEW}, TWO, None, Bounds(max_asr=5), METHODS),
    "a tuning": lambda: curve_table({"OLD": OLD, "NEW": NEW}, SETTINGS, "p_max=30,p_min=10", Bounds(max_asr=5)),
}


def printed(table: RenderableType, width: int) -> str:
    console = Console(width=width, highlight=False, markup=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def figures(text: str) -> list[str]:
    """The words with digits, in any order."""
    return sorted(word for word in text.split() if any(letter.isdigit() for letter in word))


@pytest.mark.parametrize("name", TABLES)
def test_no_line_is_too_long_and_no_figure_is_cut(name: str) -> None:
    whole = set(figures(printed(TABLES[name](), 400)))
    for width in (40, 60, 80, 120):
        text = printed(TABLES[name](), width)
        assert max(map(cell_len, text.splitlines())) <= width
        assert "…" not in text
        if width == 40:
            assert {word for word in whole if len(word) < 20} <= set(figures(text))
    assert "─" in printed(TABLES[name](), 120)


def test_a_row_that_does_not_fit_is_a_block() -> None:
    table = plain_table("Restored", "where", "block", "share", "update")
    table.add_row("vision_tower", "0/2", "30.0%", "2.47%")
    table.add_row("", "1/2", "20.0%", "3.38%")
    assert [line.rstrip() for line in printed(apart(table), 24).splitlines()] == [
        *("Restored", "", "vision_tower", "  block 0/2  share 30.0%", "  update 2.47%"),
        *("vision_tower", "  block 1/2  share 20.0%", "  update 3.38%", ""),
    ]
    marked = plain_table("Curve", "", "setting", "attack success ↓", words=2)
    marked.add_row("→", "p_max=30,p_min=10", "0.0 (0.0–19.4)")
    assert [line.rstrip() for line in printed(apart(marked), 34).splitlines()] == [
        *("Curve", "", "→ p_max=30,p_min=10", "  attack success ↓ 0.0 (0.0–19.4)", "")
    ]


def test_a_block_of_a_tuning_is_named_by_method_and_setting() -> None:
    lines = printed(curve_table({"OLD": OLD}, TWO, next(iter(TWO)), Bounds(max_asr=5), METHODS), 40).splitlines()
    named = [line.strip() for line in lines[1:] if line.strip() and not line.startswith("  ")]
    assert named[:5] == ["OLD", "→ hpa strength=1", "hpa strength=3", "regmean strength=1", "regmean strength=3"]


def test_facts_stand_below_their_labels() -> None:
    facts = facts_table(("from NEW as they are", "36 norms"), ("time", "3 s"))
    assert printed(facts, 80).splitlines()[0].split() == ["from", "NEW", "as", "they", "are", "36", "norms"]
    assert [line.rstrip() for line in printed(facts, 30).splitlines()] == [
        *("from NEW as they are", "  36 norms", "time", "  3 s")
    ]
