"""Results of other harnesses as a report reads them."""

from pathlib import Path

from harness_files import lm_eval, share, write
from report_samples import report_of

from hpa_merge.report.benchmarks import Benchmark, Benchmarks
from hpa_merge.report.harness import given_of, read_results
from hpa_merge.report.schema import MergeReport

REPORT = report_of()
"""Of /home/somebody/aligned and /home/somebody/tuned."""

OUT = Path("/home/somebody/repaired")


def read(*words: object, report: MergeReport = REPORT) -> Benchmarks:
    found = read_results([given_of(str(word)) for word in words], report, OUT).benchmarks
    assert found is not None
    return found


def rows(benchmarks: Benchmarks) -> dict[str, Benchmark]:
    return {row.name: row for row in benchmarks.rows}


def of_three(tmp_path: Path, old: int, new: int, out: int, samples: int = 200) -> Benchmarks:
    """Attacks that succeed, and a task that NEW does better, of all three models."""
    for name, attacks, task in (("aligned", old, 0.3), ("tuned", new, 0.8), ("repaired", out, 0.75)):
        tasks = {"attacks": share(attacks, samples, "asr"), "task": share(round(task * samples), samples)}
        content = lm_eval(f"pretrained={name}", tasks)
        for each in content["n-samples"].values():
            each["effective"] = samples
        write(tmp_path / f"{name}.json", content)
    return read(tmp_path)
