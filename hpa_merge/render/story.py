"""The words and tables of the page: what was done, what was left, what it cost, how to do it again."""

from hpa_merge.config import option_fields, uses
from hpa_merge.counting import counted
from hpa_merge.render.figures import Table
from hpa_merge.report.benchmark_words import benchmark_rows, heads_of
from hpa_merge.report.benchmarks import Benchmarks
from hpa_merge.report.evaluation import Evaluation
from hpa_merge.report.facts import (
    Facts,
    adapted_in,
    adapter_facts,
    cost_facts,
    dtype_facts,
    input_facts,
    mixture_facts,
    options_text,
    outcomes_of,
    round_rows,
    set_facts,
    things_restored,
)
from hpa_merge.report.over_rounds import ROUNDS_MEASURED, over_rounds
from hpa_merge.report.rows import figures_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import bytes_text, listed, option_text, percent, seconds_text

BENCHMARKS = 300
"""The most rows of a table of other harnesses; the report has all."""

NAMES = 200
"""The most linears that the page names for each reason why they were not adapted."""


def tiles(report: MergeReport) -> Facts:
    """The figures at the top, each with what it is."""
    adapted, run = adapted_in(report), report.run
    figures = figures_of(adapted)
    found = [(f"of {counted(len(report.linears), 'linear weight')} adapted", f"{len(adapted):,}")]
    for name, words in (
        ("restored_share", f"of their {things_restored(report)} restored"),
        ("compensated_share", "of their values compensate"),
        ("energy_restored", "of the update's energy undone, mean"),
        ("shared", "of safety's columns wanted by the task too, mean"),
    ):
        if figures[name] is not None:
            found.append((words, percent(figures[name])))
    memory = run.peak_host_bytes if run.peak_device_bytes is None else run.peak_device_bytes
    found.append(("of memory at most" if run.peak_device_bytes is None else "of device memory", bytes_text(memory)))
    return [*found, (f"on {run.device}", seconds_text(run.seconds))]


def summary(report: MergeReport) -> list[str]:
    """What happened, a paragraph each."""
    adapted = adapted_in(report)
    figures = figures_of(adapted)
    first = (
        f"{report.architecture} has {counted(len(report.linears), 'linear weight')}; "
        f"{len(adapted)} of them were adapted by the method {report.method}."
    )
    if (share := figures["restored_share"]) is not None:
        first += f" Of these, {percent(share)} of the {things_restored(report)} are OLD's again."
    if (compensated := figures["compensated_share"]) is not None:
        first += f" {percent(compensated)} of the values compensate for the others, and are neither model's."
    if (energy := figures["energy_restored"]) is not None:
        first += f" What was restored held {percent(energy)} of the change that tuning had made, on average; the rest"
        first += " was kept" + (", minus the orthogonal correction." if any(r.kappa for r in adapted) else ".")
    left = [f"{count} {words}" for outcome, words in outcomes_of(report).items() if (count := report.count(outcome))]
    second = f"The linear weights: {', '.join(left)}. " if len(adapted) < len(report.linears) else ""
    if others := sum(report.passed_through.values()):
        second += f"{counted(others, 'other tensor')}, such as norms and embeddings, came from NEW byte for byte."
    return [text for text in (first, second.strip()) if text]


def evaluation_facts(evaluation: Evaluation) -> Facts:
    """The judge, the test files and what the gate found."""
    sizes = {
        figure.samples
        for model in evaluation.models
        for kind in (model.safety, model.tasks, model.benign)
        for figure in kind.values()
    }
    ends = " to ".join(str(size) for size in sorted({min(sizes, default=0), max(sizes, default=0)}))
    return [
        ("judge of attacks", evaluation.judge),
        *([("prompts of a set", ends)] if sizes else []),
        *((f"{kind} set {name}", file) for kind, files in evaluation.files.items() for name, file in files.items()),
        *(("gate", sentence) for sentence in evaluation.failures),
        *((f"setting {name}", text) for name, text in _settings(evaluation).items()),
    ]


def benchmark_tables(benchmarks: Benchmarks) -> list[Table]:
    """The scores of other harnesses, then those of the parts of groups."""
    heads = heads_of(benchmarks)
    kinds = (
        ("Measured with other harnesses", [row for row in benchmarks.rows if not row.group]),
        ("The parts of groups", [row for row in benchmarks.rows if row.group]),
    )
    tables = []
    for caption, rows in kinds:
        more = f", the first {BENCHMARKS} of {len(rows)}" if len(rows) > BENCHMARKS else ""
        if rows:
            lines = tuple(benchmark_rows(benchmarks, rows[:BENCHMARKS]))
            tables.append(Table(f"{caption}{more}", heads, lines, words=True))
    return tables


def _settings(evaluation: Evaluation) -> dict[str, str]:
    """The options of each setting of a tuning as text, by name; empty for another evaluation."""
    settings = evaluation.run.get("settings")
    found = settings.items() if isinstance(settings, dict) else ()
    return {name: options_text(options) for name, options in found if isinstance(options, dict)}


def left_tables(report: MergeReport) -> list[Table]:
    """The parts of the model, its other tensors, and NEW's other files."""
    parts = tuple(
        (part.name, part.policy, str(part.tensors), listed(part.linears) if part.linears else "none")
        for part in report.components
    )
    kinds = tuple((kind, str(count)) for kind, count in report.passed_through.items())
    files = tuple((name,) for name in report.left_out)
    tables = (
        Table("Parts of the model", ("part", "taken", "tensors", "linear weights"), parts, words=True),
        Table("Other tensors, from NEW byte for byte", ("kind", "tensors"), kinds),
        Table("Files of NEW that were not carried over", ("file",), files, words=True),
    )
    return [table for table in tables if table.rows]


def left_names(report: MergeReport) -> list[tuple[str, list[str], int]]:
    """The linears that were not adapted: for each reason a heading, names, and how many more there are."""
    found = []
    for outcome, words in outcomes_of(report).items():
        names = [record.name for record in report.linears if record.outcome == outcome]
        if names and outcome != "adapted":
            heading = f"{counted(len(names), 'linear weight')} {words}"
            found.append((heading, names[:NAMES], max(0, len(names) - NAMES)))
    return found


def history_table(report: MergeReport) -> Table | None:
    """The earlier rounds, and this one; None in the first round."""
    if not report.history:
        return None
    head = (
        "round",
        "OLD",
        "NEW",
        "finished",
        "method",
        "adapted",
        "restored",
        "energy",
        "drift",
        "first",
        "evaluation",
    )
    rows = tuple(tuple(row[name] for name in head) for row in round_rows(report))
    return Table("The rounds, the first one first", head, rows, words=True)


def measured_table(report: MergeReport) -> Table | None:
    """What was measured in the rounds; None if that is nothing, or in the first round."""
    found = over_rounds(report)
    return None if found is None else Table(f"{ROUNDS_MEASURED}, each with its own prompts", found[0], tuple(found[1]))


def cost(report: MergeReport) -> Facts:
    """Time and memory."""
    finished = [("finished (UTC)", report.run.finished)] if report.run.finished else []
    return [*cost_facts(report.run), *finished]


def inputs(report: MergeReport) -> Facts:
    """The two checkpoints, the two sets, and what else the result depends on."""
    run = report.run
    rows = [("OLD", run.old), ("NEW", run.new), *adapter_facts(run.adapter)]
    rows += dtype_facts(run)
    rows += [*set_facts(report.safety, report.task), *mixture_facts(report), *input_facts(run)]
    return [*rows, ("fingerprint", run.fingerprint)] if run.fingerprint else rows


def options_table(report: MergeReport) -> Table:
    """The options that the method uses, with their defaults."""
    defaults = option_fields()
    rows = [
        (f"--{name.replace('_', '-')}", option_text(value), option_text(defaults[name][0]) if name in defaults else "")
        for name, value in report.config.items()
        if uses(report.method, name)
    ]
    return Table("Options of the method", ("option", "value", "default"), tuple(rows), words=True)


def versions_table(report: MergeReport) -> Table:
    """The libraries that the merge ran with."""
    return Table("Libraries", ("library", "version"), tuple(report.run.versions.items()), words=True)
