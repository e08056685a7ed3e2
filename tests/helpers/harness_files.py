"""Files of results in the shape that lm-evaluation-harness 0.4.13, lmms-eval 0.7.3 and inspect-ai 0.3.285 write."""

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow


def lm_eval(model: str | dict[str, Any], tasks: Mapping[str, Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    """What ``lm_eval --output_path`` writes: values and standard errors by ``metric,filter``, per task."""
    results = {task: {"name": task, "alias": task, "sample_len": 200, **values} for task, values in tasks.items()}
    return {
        "results": results,
        "group_subtasks": {},
        "configs": {task: {"task": task, "doc_to_text": "{{question}}"} for task in tasks},
        "versions": dict.fromkeys(tasks, 1.0),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {task: {"acc": True, "exact_match": True, "word_perplexity": False} for task in tasks},
        "n-samples": {task: {"original": 500, "effective": 200} for task in tasks},
        "config": {"model": "hf", "model_args": model, "limit": None, "gen_kwargs": {}, "model_sha": ""},
        "date": 1795895190.2,
        "lm_eval_version": "0.4.13",
        "task_hashes": {},
        "model_source": "hf",
        "model_name": "somebody/else",
        "chat_template": None,
        "fewshot_as_multiturn": None,
        **changes,
    }


def lmms_eval(model: str, tasks: Mapping[str, Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    """What ``lmms_eval --output_path`` writes."""
    content = lm_eval(f"pretrained={model},attn_implementation=sdpa", tasks, lmms_eval_version="0.7.3", **changes)
    del content["lm_eval_version"]
    return content


def share(successes: int, samples: int, metric: str = "acc", of: str = "none") -> dict[str, Any]:
    """The values of a metric that is 0 or 1 for each sample, as lm-evaluation-harness computes them."""
    value = successes / samples
    return {f"{metric},{of}": value, f"{metric}_stderr,{of}": (value * (1 - value) / (samples - 1)) ** 0.5}


def inspect_ai(model: str, scores: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """What ``inspect eval --log-format json`` writes."""
    spec = {
        "task": "inspect_evals/refusals",
        "task_version": 2,
        "task_args": {},
        "model": f"hf/{model.rpartition('/')[2]}",
        "model_args": {"model_path": model},
        "config": {"epochs": 1, "fail_on_error": True},
        "packages": {"inspect_ai": "0.3.285"},
    } | changes.pop("eval", {})
    results = {"total_samples": 40, "completed_samples": 40, "scores": scores}
    return {"version": 2, "status": "success", "eval": spec, "results": results, "invalidated": False, **changes}


def inspect_score(name: str, scorer: str = "judge", samples: int = 40, **metrics: Any) -> dict[str, Any]:
    """An entry of ``results.scores``."""
    values = {metric: {"name": metric, "value": value, "params": {}} for metric, value in metrics.items()}
    return {"name": name, "scorer": scorer, "scored_samples": samples, "unscored_samples": 0, "metrics": values}


def write(path: Path, content: Any) -> Path:
    """A JSON file; NaN and infinities are written as the harnesses do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def write_archive(path: Path, content: Any, method: str = "zstd", member: str = "header.json") -> Path:
    """A log ``*.eval``: a zip archive, whose members inspect-ai packs with zstd, as older versions did with deflate."""
    text = json.dumps(content).encode()
    if method != "zstd":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, text)
            archive.writestr("samples/1_epoch_1.json", b"{}")
        return path
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text)
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(member, bytes(sink.getvalue()))
    raw = bytearray(stored.getvalue())
    directory = raw.index(b"PK\1\2")
    for place in (8, directory + 10):  # where a member's method stands, before it and in the directory
        raw[place : place + 2] = struct.pack("<H", 93)
    raw[directory + 24 : directory + 28] = struct.pack("<I", len(text))
    path.write_bytes(raw)
    return path
