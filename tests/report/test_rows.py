"""The figures of several linears are computed once, and every table, page and card shows the same."""

import dataclasses
import re
from io import StringIO

from report_samples import evaluated, report_of
from rich.console import Console

from hpa_merge.cli.tables.merging import merge_summary
from hpa_merge.render.card import make
from hpa_merge.render.story import tiles
from hpa_merge.report.evaluation import measured_in
from hpa_merge.report.measures import MEASURES
from hpa_merge.report.rows import figures_of, projection_of, ranges


def test_the_overlap_is_that_of_weights_that_have_a_focus_set() -> None:
    """A weight whose budget is zero has nothing that the task could want too."""
    report = report_of()
    (record,) = report.linears
    some = dataclasses.replace(record, n_focus=10, n_shared=8, alpha=0.5, kappa=0.0)
    none = dataclasses.replace(some, name="k_proj.weight", n_focus=0, n_shared=0)
    report = dataclasses.replace(report, linears=(some, none))
    assert figures_of(report.linears)["shared"] == 0.8
    (overlap,) = (measure for measure in MEASURES if measure.file == "hpa_overlap.png")
    assert overlap.of(report.linears) == 0.8
    assert ("of safety's columns wanted by the task too, mean", "80 %") in tiles(report)
    assert re.search(r"the task wants too \| 80 %", make(report))
    shown = StringIO()
    Console(file=shown, width=200).print(merge_summary(report, "out"))
    assert "80%" in shown.getvalue()
    assert "40%" not in shown.getvalue()


def test_names_of_projections() -> None:
    for name, wanted in {
        "model.layers.0.self_attn.q_proj.weight": "q_proj",
        "model.layers.0.mlp.experts.gate_up_proj[3]": "gate_up_proj",
        "model.layers.0.block_sparse_moe.experts.5.w1.weight": "w1",
        "model.mm_projector.0.weight": "mm_projector",
        "lm_head.weight": "lm_head",
        "0": "0",
    }.items():
        assert projection_of(name) == wanted


def test_ranges() -> None:
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_what_was_measured() -> None:
    for content in (None, {}, {"models": 3}, evaluated() | {"models": []}, evaluated() | {"schema_version": 9}):
        assert measured_in(content) is None
    for content, name in (
        (evaluated(), "repaired"),
        (evaluated(chosen="tuned"), "tuned"),
        (evaluated(chosen="tuned") | {"out": "aligned"}, "aligned"),
    ):
        found = measured_in(content)
        assert found is not None
        assert found[1].name == name
