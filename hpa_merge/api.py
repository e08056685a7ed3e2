"""The functions that the package exports."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

from hpa_merge.arguments import check_counts, checked
from hpa_merge.config import HPAConfig
from hpa_merge.engine.machine import versions
from hpa_merge.engine.request import MergeOptions, MergeRequest
from hpa_merge.engine.run import merge_all
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation import running, tuning
from hpa_merge.evaluation.candidates import candidates, split_names
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.evaluation.confirming import confirming_files, split
from hpa_merge.evaluation.guards import Guard
from hpa_merge.evaluation.held_out import check_held_out
from hpa_merge.evaluation.options import options_of
from hpa_merge.evaluation.prompts import PromptFile
from hpa_merge.evaluation.running import Answering, AnsweringOptions
from hpa_merge.evaluation.safety_set import SafetySet, check_place, make_safety_set, write_safety_set
from hpa_merge.evaluation.tuning import Tuning
from hpa_merge.evaluation.workplace import setting_folders
from hpa_merge.inputs.data_sets import locate_data
from hpa_merge.inputs.hub import locate
from hpa_merge.progress import Progress, bars_in_notebooks, silent
from hpa_merge.records import reading_of_sets, reading_options
from hpa_merge.records.given import several
from hpa_merge.render.folder import render
from hpa_merge.report.evaluation import MAX_BROKEN, Evaluation
from hpa_merge.report.gating import bounds_of, gate
from hpa_merge.report.schema import MergeReport

__all__ = ["calibrate", "evaluate", "merge", "sweep", "tune"]


@bars_in_notebooks(on_progress="merging")
@checked
def merge(
    old: str | Path,
    new: str | Path,
    out: str | Path,
    *,
    safety_calib: str | Path | None = None,
    task_calib: str | Path | Sequence[str | Path] | None = None,
    image_folder: str | Path | Sequence[str | Path] | None = None,
    config: HPAConfig | None = None,
    vision_tower: str | Path | None = None,
    stats: str | Path | None = None,
    stats_hessians: bool = False,
    first: str | Path | None = None,
    trust_remote_code: bool = False,
    max_memory: int | None = None,
    max_host_memory: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    page: bool = True,
    on_progress: Progress = silent,
) -> MergeReport:
    """Restore in NEW what OLD's safety and earlier tasks need, and write the result to ``out``.

    Args:
        old, new: the checkpoints before and after the tuning step: folders in Hugging Face layout, or names on the Hub,
            ``org/name[:folder][@revision]``. ``new`` may be a PEFT adapter that was trained on ``old``. Neither is
            written to.
        out: a new folder; it appears complete or not at all.
        safety_calib, task_calib: calibration files, if the method uses them; docs/calibration.md has the formats. A
            string may also name a data set on the Hub, ``org/name[:config][:split][@revision]``. ``task_calib`` may be
            several, with the shares in ``config.task_share``.
        image_folder: where relative paths of images start, instead of each file's own folder; ``safety:FOLDER`` and
            ``task:FOLDER`` apply to one set.
        config: the options; the paper's by default.
        vision_tower: the CLIP folder of a checkpoint in LLaVA's own layout, unless its config.json names a local one.
        stats: a file of column statistics: what fits these inputs is read, the rest is computed and written there.
        stats_hessians: keep the Hessians too, in a folder next to it, for the methods that take more than the diagonal.
        first: the first aligned model of OLD's history, a folder or a name on the Hub, to measure the drift from it. In
            the first round OLD is that model.
        trust_remote_code: run the code that the checkpoints bring (``auto_map`` in their configurations). That of the
            model runs in this process; docs/layouts.md says more.
        max_memory: bytes that may be used on the device that computes: the CUDA device, or the host.
        max_host_memory: bytes that may be used on the host next to a CUDA device.
        overwrite: replace ``out`` if it exists.
        resume: continue what an interrupted run with the same arguments left next to ``out``.
        page: draw the report as ``hpa_report.html`` with pictures.
        on_progress: called from the first check to the end with what is being done, the steps done, and how many there
            are, which is 1 until it is known. By default there is a bar in a notebook, and nothing elsewhere or with
            ``hpa_merge.silent``.

    Returns:
        The report, which is also in ``out`` as ``hpa_report.json``.

    Raises:
        InputError: the inputs or the options are wrong.
        NumericalError: a weight or an activation is not finite, or a Hessian cannot be factored.
        ResourceError: memory ran out.
    """
    request = MergeRequest.of(
        old,
        new,
        {out: config or HPAConfig()},
        safety_calib=safety_calib,
        task_calib=task_calib,
        image_folder=image_folder,
        vision_tower=vision_tower,
        stats=stats,
        stats_hessians=stats_hessians,
        first=first,
        trust_remote_code=trust_remote_code,
        max_memory=max_memory,
        max_host_memory=max_host_memory,
        overwrite=overwrite,
        resume=resume,
        page=page,
    )
    return merge_all(request, render, on_progress)[Path(out)]


@bars_in_notebooks(on_progress="merging")
@checked
def sweep(
    old: str | Path,
    new: str | Path,
    outs: Mapping[str | Path, HPAConfig],
    *,
    on_progress: Progress = silent,
    **options: Unpack[MergeOptions],
) -> dict[Path, MergeReport]:
    """Several merges from one read of the inputs and one run of the samples, each as :func:`merge` would make it.

    Args:
        old, new: as in :func:`merge`.
        outs: the options of each OUT. Those that the statistics depend on (damping, samples, seed, device) must be the
            same in all.
        on_progress: as in :func:`merge`.
        **options: the other keyword arguments of :func:`merge`, except ``config``. With ``resume``, a complete OUT that
            this call would make again is left unchanged.

    Returns:
        The report of each OUT.

    Raises:
        InputError, NumericalError, ResourceError: as in :func:`merge`; no OUT is made then.
    """
    request = MergeRequest.of(old, new, outs, skip_complete=options.get("resume", False), **options)
    return merge_all(request, render, on_progress)


@bars_in_notebooks(on_progress="asking")
@checked
def calibrate(
    model: str | Path,
    prompts: str | Path,
    out: str | Path,
    *,
    samples: int = 8,
    judge: str | Path | Guard = "phrases",
    seed: int = 0,
    map: str | Sequence[str] = (),
    ignore_field: str | Sequence[str] = (),
    image_folder: str | Path | Sequence[str | Path] = (),
    overwrite: bool = False,
    on_progress: Progress = silent,
    **answering: Unpack[AnsweringOptions],
) -> SafetySet:
    """Make the safety set for a merge: unsafe prompts with the safe answers of the aligned model itself.

    Args:
        model: the aligned model: a folder, a name on the Hub or, with ``endpoint``, its name on the server.
        prompts: unsafe prompts, a file or the name of a data set on the Hub. If they have a ``category``, every
            category gets as many samples.
        out: the file to write, JSON Lines of conversations.
        samples: the number of samples.
        judge: the judge of refusals: ``phrases``, the folder of a guard model, ``module:function``, or a
            :class:`Guard`, which has the options of a guard model.
        seed: of the order of the prompts.
        map: ``WANTED=GIVEN`` each: the prompts' field GIVEN is the field that layouts call WANTED.
        ignore_field: fields of the prompts to ignore.
        image_folder: where relative paths of images start, instead of the file's own folder.
        overwrite: replace ``out`` if it exists.
        on_progress: called before each batch of prompts; the default is as in :func:`merge`.
        **answering: ``device``, ``batch_size``, ``max_new_tokens``; for a server with OpenAI's protocol ``endpoint``,
            ``concurrency`` and ``timeout`` in seconds; for models that are loaded here ``max_frames``,
            ``chat_template``, ``template_arg`` and ``template_date``, as in :class:`HPAConfig`; ``trust_remote_code``,
            as in :func:`merge`; and ``base``, the model that adapters were trained on, unless their adapter_config.json
            names a folder.

    Returns:
        The samples, and the numbers of prompts and of dropped answers.

    Raises:
        InputError: a file or the model cannot be read, or too few answers are safe; ``out`` cannot be written.
        ResourceError: memory ran out.
    """
    check_counts(samples=samples)
    check_place(Path(out), [Path(model), Path(prompts)], overwrite)
    source = locate_data(prompts, "test")
    check_place(Path(out), [source.guarded], overwrite)
    file = PromptFile(source, "safety", options=reading_options("safety", map, ignore_field, image_folder))
    chosen, how = running.judge_of(judge), Answering(**answering)
    example = file.example.sample
    on_progress("loading the model", 0, file.count)
    with running.opened(str(model), example, how) as answerer, running.opened_judge(chosen, example, how) as asked:
        made = make_safety_set(file, answerer, asked, samples, seed=seed, on_progress=on_progress)
    write_safety_set(made, Path(out))
    return made


@bars_in_notebooks(on_progress="evaluating")
@checked
def evaluate(
    models: str | Path | Sequence[str | Path],
    *,
    safety_tests: Mapping[str, str | Path] | None = None,
    task_tests: Mapping[str, str | Path] | None = None,
    benign_tests: Mapping[str, str | Path] | None = None,
    metrics: Mapping[str, str] | None = None,
    samples: int | None = None,
    judge: str | Path | Guard = "phrases",
    seed: int = 0,
    map: str | Sequence[str] = (),
    ignore_field: str | Sequence[str] = (),
    image_folder: str | Path | Sequence[str | Path] = (),
    answers: str | Path | None = None,
    max_dasr: float | None = None,
    max_task_drop: float | None = None,
    max_over_refusal: float | None = None,
    max_broken: float = MAX_BROKEN,
    max_asr: float | None = None,
    confident: bool = False,
    gated: str | Path | Sequence[str | Path] = (),
    on_progress: Progress = silent,
    **answering: Unpack[AnsweringOptions],
) -> Evaluation:
    """Ask every model the same prompts and compare the answers; decoding is greedy.

    Args:
        models: folders, names on the Hub or, with ``endpoint``, names on the server; one, or several.
        safety_tests: files of unsafe prompts, by name; ``task_tests``: of prompts with their answers;
            ``benign_tests``: of harmless prompts. At least one file.
        metrics: the metric of a task, by its name; docs/evaluation.md lists the metrics.
        samples: use at most so many prompts of each file, drawn with ``seed``.
        judge: the judge of attacks, as in :func:`calibrate`.
        seed: of the draws and of the bootstrap.
        map: ``[SET:]WANTED=GIVEN`` each: the field GIVEN is the field that layouts call WANTED; SET is ``safety``,
            ``task`` or ``benign``, and without it all files are meant.
        ignore_field: ``[SET:]NAME`` each: fields to ignore.
        image_folder: ``[SET:]FOLDER`` each: where relative paths of images start, instead of each file's own folder.
        answers: a folder for all answers, JSON Lines in a folder for each model.
        max_asr, max_dasr, max_task_drop, max_over_refusal, max_broken, confident: the bounds of the gate, as
            :class:`~hpa_merge.report.evaluation.Bounds` has them.
        gated: the models that the gate checks; by default all but the first, or the only one.
        on_progress: called before each batch of prompts.
        **answering: as in :func:`calibrate`.

    Returns:
        The figures of each model, and in ``failures`` a sentence for each bound that a model exceeds.

    Raises:
        InputError: a file or a model cannot be read, or an answer cannot be judged.
        ResourceError: memory ran out.
    """
    started, how, names = time.monotonic(), Answering(**answering), [str(model) for model in several(models)]
    if not names:
        raise EvaluationError("models is empty: give one or more.")
    of_gate = running.names_of([str(model) for model in several(gated)], names)
    bounds = bounds_of(
        max_dasr=max_dasr,
        max_task_drop=max_task_drop,
        max_over_refusal=max_over_refusal,
        max_broken=max_broken,
        max_asr=max_asr,
        confident=confident,
    )
    if how.endpoint is None:  # fetch all before the first is asked
        locate({f"MODEL {number}": name for number, name in enumerate(names, start=1)})
    suite = Suite.of(
        safety_tests or {},
        task_tests or {},
        benign_tests or {},
        metrics or {},
        samples=samples,
        seed=seed,
        reading=reading_of_sets(map, ignore_field, image_folder),
    )
    with ExitStack() as stack:
        folder = answers or stack.enter_context(TemporaryDirectory(prefix="hpa-merge-"))
        results = running.evaluate(
            names, suite, running.judge_of(judge), Path(folder), how, seed=seed, on_progress=on_progress
        )
    asked = {
        **{"samples": samples, "seed": seed, "map": [*several(map)], "ignore_field": [*several(ignore_field)]},
        "image_folder": [str(folder) for folder in several(image_folder)],
    }
    return Evaluation(
        models=results,
        judge=judge.model if isinstance(judge, Guard) else str(judge),
        files=suite.files,
        failures=gate(results, bounds, of_gate),
        run={
            "seconds": time.monotonic() - started,
            "versions": versions(),
            "options": {**options_of(how, judge), **asked, **asdict(bounds)},
            **({"commits": suite.commits} if suite.commits else {}),
        },
        bounds=bounds,
    )


@bars_in_notebooks(on_merge="merging", on_answer="evaluating")
@checked
def tune(
    old: str | Path,
    new: str | Path,
    out: str | Path,
    *,
    max_asr: float,
    safety_tests: Mapping[str, str | Path],
    task_tests: Mapping[str, str | Path],
    benign_tests: Mapping[str, str | Path] | None = None,
    confirm_tests: Mapping[str, str | Path] | None = None,
    max_over_refusal: float | None = None,
    max_broken: float = MAX_BROKEN,
    confident: bool = False,
    metrics: Mapping[str, str] | None = None,
    samples: int | None = None,
    config: HPAConfig | None = None,
    methods: str | Sequence[str] = (),
    settings: Mapping[str, HPAConfig] | None = None,
    judge: str | Path | Guard = "phrases",
    batch_size: int = 8,
    max_new_tokens: int = 128,
    keep_all: bool = False,
    on_merge: Progress = silent,
    on_answer: Progress = silent,
    **options: Unpack[MergeOptions],
) -> Tuning:
    """Find the setting that loses least on the tasks while at most ``max_asr`` percent of the attacks succeed.

    Several settings are merged from one read of OLD and NEW, and each answers half of the held-out prompts of the test
    files. The best of those within the bounds answers the other half too, by which it was not chosen. If it is within
    the bounds there, it becomes ``out``.

    Args:
        old, new, out: as in :func:`merge`.
        max_asr: percent of attacks that may succeed; ``max_over_refusal``: percent of benign prompts that may be
            refused; ``max_broken``: percent of the answers to either that may be broken.
        safety_tests, task_tests, benign_tests, metrics, samples, judge: as in :func:`evaluate`.
        confirm_tests: files of other prompts, by the name of the set that they confirm, which is then not divided.
        confident: each bound holds for the worse end of the 95 % interval, in the choice and in its confirmation.
        config: the options of all settings, which are its method at several strengths.
        methods: the names of several methods, a list or ``hpa,linear``; each is tried at several strengths, with the
            options of ``config`` that it uses.
        settings: the options of each setting, by name, instead of those of the same method; without ``methods``,
            instead of all.
        batch_size, max_new_tokens: as in :func:`calibrate`.
        keep_all: keep the other settings next to ``out``.
        on_merge, on_answer: called before each unit and before each batch of prompts.
        **options: the other keyword arguments of :func:`merge`.

    Returns:
        The figures of OLD, NEW and every setting, the chosen one with its figures on the other prompts, and whether it
        became ``out``.

    Raises:
        InputError, NumericalError, ResourceError: as in :func:`merge` and :func:`evaluate`.
    """
    bounds = bounds_of(max_asr=max_asr, max_over_refusal=max_over_refusal, max_broken=max_broken, confident=confident)
    config = config or HPAConfig()
    base = {item.name: value for item in fields(config) if (value := getattr(config, item.name)) != item.default}
    tried = split_names([methods] if isinstance(methods, str) else methods)
    outs = setting_folders(Path(out), candidates(base, tried, settings))
    request = MergeRequest.of(old, new, outs, skip_complete=options.get("resume", False), **options)
    seed, reading = config.seed, reading_of_sets(config.map, config.ignore_field, request.image_folder)
    suite = Suite.of(
        safety_tests, task_tests, benign_tests or {}, metrics or {}, samples=samples, seed=seed, reading=reading
    )
    given = confirming_files(suite, confirm_tests or {}, samples=samples, seed=seed, reading=reading)
    for each in (suite, given):
        check_held_out(each, request)
    return tuning.tune(
        request,
        Path(out),
        split(suite, given, bounds, settings=len(outs), seed=seed),
        running.judge_of(judge),
        bounds,
        Answering.of(config, batch_size, max_new_tokens, trust_remote_code=request.trust_remote_code),
        seed=seed,
        keep_all=keep_all,
        on_merge=on_merge,
        on_answer=on_answer,
    )
