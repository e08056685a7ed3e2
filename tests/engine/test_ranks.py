"""Several ranks write the bytes that one process writes, and together read every byte once."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import lora, make_adapter
from cases import REPORT, TinyCase, content
from mixtures import gpt_oss, make, mixtral
from quantised import quantise
from ranks import on_ranks

from hpa_merge import HPAConfig, MergeReport, merge, sweep
from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.sharing import Share
from hpa_merge.core.leaves import GatheredLeaves, leaf_at, rank_at
from hpa_merge.engine import unit_merge
from hpa_merge.engine.observations import Observations
from hpa_merge.errors import NumericalError
from hpa_merge.ranks import Group, Parcel

pytestmark = pytest.mark.gate

Tiny = Callable[..., TinyCase]
Work = Callable[[Path], None]


def made(folder: Path, work: Work, size: int) -> dict[str, Any]:
    """What so many ranks make in ``folder``, which is removed: a note may name it."""
    folder.mkdir()
    if size == 1:
        work(folder)
    else:
        assert on_ranks(size, lambda rank: work(folder), folder.parent) == [None] * size
    found = {path.parent.name: content(path.parent) for path in folder.glob(f"*/{REPORT}")}
    found |= {path.name: path.read_bytes() for path in (*folder.glob("stats"), *folder.glob("stats.hessians/*"))}
    shutil.rmtree(folder)
    return found


def write_ids(path: Path, *lengths: int) -> Path:
    """A calibration file of so many samples of token ids; no child process reads them."""
    draw = torch.Generator().manual_seed(len(lengths))
    rows = [torch.randint(3, 200, (length,), generator=draw).tolist() for length in lengths]
    path.write_text("".join(f"{json.dumps({'input_ids': row})}\n" for row in rows))
    return path


# Of 64 columns, 52 tokens are multiplied, and so are 66 tokens of a leaf; of 112 columns, 90 and 114.
SAFETY = (200, 9, 70)  # fewer than ranks; leaves whose Gram matrices travel
TASK = (5, 30, 8, 90, 7, 11, 6, 130, 3, 20, 40, 7, 9, 4, 8, 31, 6, 5, 22)  # leaves of one and of two samples


@pytest.fixture(scope="module")
def text(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    folder = tmp_path_factory.mktemp("ids")
    case = tiny("llama", "bfloat16")
    return case._replace(safety=write_ids(folder / "s.jsonl", *SAFETY), task=write_ids(folder / "t.jsonl", *TASK))


def test_a_text_model(text: TinyCase, tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        """Two OUTs with statistics; an OUT from these alone; one with another set; one with Hessians."""
        files: dict[str, Any] = {"safety_calib": text.safety, "task_calib": text.task, "page": False}
        outs = {folder / "a": HPAConfig(), folder / "b": HPAConfig(p_max=30.0, embeddings="old")}
        sweep(text.old, text.new, outs, stats=folder / "stats", **files)
        merge(text.old, text.new, folder / "c", stats=folder / "stats", **files)
        merge(text.old, text.new, folder / "d", stats=folder / "stats", **files | {"task_calib": text.safety})

    alone = made(tmp_path / "out", work, 1)
    for size in (2, 3, 4):
        assert made(tmp_path / "out", work, size) == alone, size


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], int]:
    """How many processes have merged a linear since the last call."""
    folder, merge_linear = tmp_path / "owners", unit_merge._merge_linear
    folder.mkdir()

    def follow(*arguments: Any) -> None:
        (folder / f"{os.getpid()}").touch()
        merge_linear(*arguments)

    def count() -> int:
        found = [*folder.iterdir()]
        for path in found:
            path.unlink(missing_ok=True)  # every rank calls this
        return len(found)

    monkeypatch.setattr(unit_merge, "_merge_linear", follow)
    return count


@pytest.mark.parametrize("build", [mixtral, gpt_oss])
def test_experts_that_no_token_of_a_rank_reaches(
    build: Callable[..., Any], owners: Callable[[], int], tmp_path: Path
) -> None:
    case = make(build, tmp_path / "pair")

    def work(folder: Path) -> None:
        files: dict[str, Any] = {"safety_calib": case.safety, "task_calib": case.task, "page": False}
        merge(case.old, case.new, folder / "a", **files)
        owners()
        config = HPAConfig(method="regmean", routers="merge")
        merge(case.old, case.new, folder / "b", config=config, stats=folder / "stats", stats_hessians=True, **files)

    alone = made(tmp_path / "out", work, 1)
    pooled = [each.get("pooled") for each in alone["a"][REPORT]["linears"]]
    assert any(pooled)
    assert not all(pooled[-6:])
    assert alone["a"][REPORT]["routing"]
    assert made(tmp_path / "out", work, 4) == alone
    assert owners() == 4  # of what is merged while Hessians are kept too


def test_images_on_some_ranks_only(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava", "bfloat16")

    def work(folder: Path) -> None:
        merge(case.old, case.new, folder / "a", safety_calib=case.safety, task_calib=case.task, page=False)

    assert made(tmp_path / "out", work, 3) == made(tmp_path / "out", work, 1)


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_weights_that_are_computed(text: TinyCase, owners: Callable[[], int], tmp_path: Path) -> None:
    """An adapter, which OUT is too; checkpoints in few bits."""
    adapter = make_adapter(text.old, "llama", lora(modules_to_save=["lm_head"]), tmp_path / "adapter")
    few_bits = [quantise(path, tmp_path / path.name, "fp8") for path in (text.old, text.new)]

    def work(folder: Path) -> None:
        files: dict[str, Any] = {"safety_calib": text.safety, "task_calib": text.task, "page": False}
        outs = {folder / form: HPAConfig(orthogonal=False, output_format=form) for form in ("model", "adapter")}
        merge(*few_bits, folder / "c", **files)
        owners()
        sweep(text.old, adapter, outs, **files)

    alone = made(tmp_path / "out", work, 1)
    assert made(tmp_path / "out", work, 3) == alone
    assert owners() == 3  # of what is merged for the adapter too


END = 2048
"""Bytes at either end of a tensor that the content digests read: on every rank when OLD and NEW are opened, and on the
first before OUT appears."""


def read_by(rank: int, size: int, folder: Path, role: str) -> int:
    """The formula: how many bytes of a checkpoint a rank reads."""
    share, total = Share(rank, size), 0
    with Checkpoint.open(folder, role) as checkpoint:
        for info in checkpoint.tensors.values():
            total += share.of(info.nbytes // info.dtype.itemsize)[1] * info.dtype.itemsize
            total += min(info.nbytes, 2 * END) * (1 if rank else 2)
    return total


def travelling(report: MergeReport) -> tuple[Counter[int], Counter[int]]:
    """The formula: bytes of the sum of each input that is wanted, before each change of rank, and at the end."""
    parts = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate", "up_proj": "gate"}
    inputs = {}
    for record in report.linears:
        block, _, name = record.name.removesuffix(".weight").rpartition(".")
        if record.outcome == "adapted":
            inputs[block, parts.get(name, name)] = record.columns
    onward, ends = Counter[int](), Counter[int]()
    for lengths, backwards in ((SAFETY, False), (TASK, True)):
        ranks = [rank_at(leaf_at(place, len(lengths)), 3, backwards=backwards) for place in range(len(lengths))]
        for c in inputs.values():
            for place, rank in enumerate(ranks):
                if (after := ranks[place + 1 : place + 2]) != [rank]:
                    sum_of = GatheredLeaves(c, offload=False, apart=False)
                    for at, length in enumerate(lengths[: place + 1]):
                        sum_of.add((1, leaf_at(at, len(lengths))), torch.ones(length, c, dtype=torch.bfloat16))
                    size = sum(each.nbytes for each in sum_of.total().packed().contents)
                    (onward if after else ends)[size] += 1
    return onward, ends


def test_each_rank_reads_its_share_and_sends_sums(text: TinyCase, tmp_path: Path) -> None:
    def work(rank: int) -> tuple[Counter[Path], list[list[tuple[int, int, bool, int]]], MergeReport]:
        read: Counter[Path] = Counter()
        rounds: list[list[tuple[int, int, bool, int]]] = []
        preadv, deliver = os.preadv, Group.deliver

        def count(descriptor: int, buffers: Any, offset: int, *flags: int) -> int:
            done = preadv(descriptor, buffers, offset, *flags)
            read[Path(f"/proc/self/fd/{descriptor}").readlink().parent] += done
            return done

        def follow(group: Group, parcels: Sequence[Parcel], device: torch.device) -> list[Parcel]:
            rounds.append([])
            for each in parcels:
                number, (_, is_last, _) = each.note
                nbytes = sum(tensor.nbytes for tensor in each.tensors)
                rounds[-1].append((number, each.receiver - rank, is_last, nbytes))
            return deliver(group, parcels, device)

        os.preadv, Group.deliver = count, follow  # type: ignore[assignment, method-assign]
        out = tmp_path / "out"
        return read, rounds, merge(text.old, text.new, out, safety_calib=text.safety, task_calib=text.task, page=False)

    found = on_ranks(3, work, tmp_path)
    for rank, (read, _, _) in enumerate(found):
        assert read[text.old.resolve()] == read_by(rank, 3, text.old, "OLD")
        assert read[text.new.resolve()] == read_by(rank, 3, text.new, "NEW")
    report, sent = found[0][2], [each for _, rounds, _ in found for of_round in rounds for each in of_round]
    onward, ends = travelling(report)
    assert Counter(nbytes for *_, is_last, nbytes in sent if not is_last) == onward
    assert Counter(nbytes for *_, is_last, nbytes in sent if is_last) < ends  # the last rank owns some inputs
    ways = {(number, steps) for number, steps, is_last, _ in sent if not is_last}
    assert ways == {(0, 1), (1, -1)}  # the sums of the two sets in opposite directions
    units = {record.name.rpartition(".layers.")[2][:1] for record in report.linears if record.outcome == "adapted"}
    for _, rounds, _ in found:
        assert len(rounds) == 3 * len(units)  # both sets in the same ones


def test_an_error_of_one_rank_is_that_of_all(text: TinyCase, tmp_path: Path) -> None:
    """Refused samples, found while one rank encodes; an error in the middle of the run; a bug."""
    outs = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text(f"{text.safety.read_text()}{json.dumps({'input_ids': [5, 600]})}\n")

    def work(rank: int) -> list[tuple[str, str]]:
        found = []
        for number, out in enumerate(outs):
            safety = text.safety if number else wrong
            if rank == 1 and number:  # the first of the unit's exchanges that it comes to
                error = NumericalError("it is not finite.") if number == 1 else ZeroDivisionError("a bug")
                Observations.of_all = raising(error)  # type: ignore[method-assign]
            try:
                merge(text.old, text.new, out, safety_calib=safety, task_calib=text.task, page=False)
            except Exception as error:
                found.append((type(error).__name__, str(error)))
        return found

    def raising(error: Exception) -> Callable[..., Any]:
        def fail(*_: object) -> None:
            raise error

        return fail

    first, failing, last = on_ranks(3, work, tmp_path)
    assert first == last
    assert first[:2] == failing[:2]
    assert [kind for kind, _ in first] == ["CalibrationError", "NumericalError", "RankError"]
    assert first[0][1].startswith(f"{wrong}:4: input_ids holds 600")
    assert "process 2 of 3 of this run has ended (ZeroDivisionError: a bug)" in first[2][1]
    assert failing[2] == ("ZeroDivisionError", "a bug")
    assert not any(out.exists() or out.with_name(f"{out.name}.partial").exists() for out in outs[:2])
