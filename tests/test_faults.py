"""A disk that is full, broken or closed, at any call: a sentence, no OUT, and --resume works once it is fixed."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase, content
from failing_disk import CALLS, ERRORS, Disk, sample
from interruptions import beside, raising, run

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.errors import CheckpointError, InputError, OutputError

pytestmark = pytest.mark.gate

CALLS += ("replace", "ftruncate")
"""What a merge asks of the system when it makes OUT, by name in ``os``; files that are opened come in addition."""

Tiny = Callable[..., TinyCase]


@pytest.fixture(scope="module")
def whole(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What comes out where nothing fails."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(tiny("gpt2"), out)
    return content(out)


@pytest.mark.parametrize("overwrite", [False, True], ids=["a new OUT", "an OUT replaced"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_a_call_that_fails(lasting: bool, overwrite: bool, whole: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    """One call fails, or every one after it too; what may fail without harm (a folder's sync, a kernel copy) does."""
    case, old = tiny("gpt2"), {"config.json": b'{"model_type": "gpt2"}', "model.safetensors": b"of the old one"}

    def attempt(folder: Path, fails: Callable[[int, str], int | None]) -> tuple[Disk, Exception | None]:
        folder.mkdir()
        out = folder / "out"
        if overwrite:
            out.mkdir()
            for name, data in old.items():
                (out / name).write_bytes(data)
        with pytest.MonkeyPatch.context() as patch:
            disk = Disk(patch, folder, fails)
            try:
                run(case, out, overwrite=overwrite)
            except (OutputError, CheckpointError) as error:
                return disk, error
        return disk, None

    calls = attempt(tmp_path / "counted", lambda number, name: None)[0].calls
    assert len(calls) > 100
    failed = 0
    for place, number in enumerate(sample(calls, 24)):
        code = ERRORS[place % len(ERRORS)]
        folder = tmp_path / str(number)
        out, what = folder / "out", f"call {number}, {calls[number - 1]}: {os.strerror(code)}"

        def fails(count: int, name: str, number: int = number, code: int = code) -> int | None:
            return code if (count >= number if lasting else count == number) else None

        _, error = attempt(folder, fails)
        if error is None:
            assert content(out) == whole, what
            shutil.rmtree(folder)
            continue
        failed += 1
        assert str(error).endswith(" for OUT."), what
        assert isinstance(error.__cause__, OSError), what
        assert error.__cause__.errno == code, what
        kept = out if out.exists() else folder / "out.replaced"  # where even the way back fails
        if overwrite:
            assert {path.name: path.read_bytes() for path in kept.iterdir()} == old, what
        assert out.exists() == overwrite or lasting, what
        run(case, out, overwrite=overwrite, resume=True)
        assert content(out) == whole, what
        assert beside(out) == ["out"], what
        shutil.rmtree(folder)
    assert failed > 12


def test_a_working_folder_that_cannot_be_made(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", raising(PermissionError(errno.EACCES, os.strerror(errno.EACCES))))
    with pytest.raises(OutputError, match=re.escape("out.partial cannot be made (Permission denied): check the")):
        run(tiny("gpt2"), tmp_path / "out")
    assert beside(tmp_path / "out") == []


def test_an_input_that_fails_once(
    whole: dict[str, Any], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share that is away for a moment costs what was not finished, and no more."""
    case, out, left = tiny("gpt2"), tmp_path / "out", ["transformer.h.2.mlp.c_fc.weight"]
    real = Checkpoint.stored_pieces

    def pieces(self: Checkpoint, info: TensorInfo, **options: Any) -> Any:
        if info.name in left:
            left.remove(info.name)
            monkeypatch.setattr(os, "preadv", gone)
        return real(self, info, **options)

    def gone(descriptor: int, *rest: Any) -> int:
        if not Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(f"{out}.partial"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return preadv(descriptor, *rest)

    preadv = os.preadv
    monkeypatch.setattr(Checkpoint, "stored_pieces", pieces)
    with pytest.raises(CheckpointError, match=re.escape("cannot be read from")):
        run(case, out)
    monkeypatch.setattr(os, "preadv", preadv)
    assert beside(out) == ["out.partial", "out.partial.journal"]
    run(case, out, resume=True)
    assert content(out) == whole


def refusal(case: TinyCase, out: Path) -> InputError | None:
    """With what a merge is refused, if it is."""
    try:
        run(case, out)
    except InputError as error:
        return error
    return None


READS = {
    "OLD's weights": "*/old/*.safetensors",
    "NEW's weights": "*/new/*.safetensors",
    "NEW's configuration": "*/new/config.json",
    "a side file of NEW": "*/new/tokenizer.json",
    "a calibration file": "*/task.jsonl",
}


@pytest.mark.parametrize("what", READS)
def test_a_read_that_fails(
    what: str, whole: dict[str, Any], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO at every fifth read of a file, one after the other: a sentence, no OUT, and --resume ends with the same."""
    case, out = tiny("gpt2"), tmp_path / "out"
    count, failing = [0], [0]
    real = {name: getattr(os, name) for name in ("preadv", "pread", "read", "copy_file_range")}

    def call(name: str) -> Callable[..., Any]:
        def reading(descriptor: int, *arguments: Any) -> Any:
            if Path(f"/proc/self/fd/{descriptor}").readlink().match(READS[what]):
                count[0] += 1
                if count[0] == failing[0]:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real[name](descriptor, *arguments)

        return reading

    opened = Path.open

    def open_path(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode == "rb" and path.match(READS[what]):
            count[0] += 1
            if count[0] == failing[0]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, mode, *arguments, **options)

    opened_by_number = os.open

    def open_number(*arguments: Any, **options: Any) -> int:
        descriptor = opened_by_number(*arguments, **options)
        try:
            call("opened")(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    for name in real:
        monkeypatch.setattr(os, name, call(name))
    real["opened"] = lambda descriptor: descriptor
    monkeypatch.setattr(Path, "open", open_path)
    monkeypatch.setattr(os, "open", open_number)
    run(case, tmp_path / "counted")
    reads = count[0]
    assert reads
    for number in {1, reads, *range(1, reads, max(1, reads // 5))}:
        count[0], failing[0] = 0, number
        if (error := refusal(case, out)) is not None:  # a kernel copy may fail
            assert "Input/output error" in str(error), number
            assert not out.exists(), number
            failing[0] = 0
            run(case, out, resume=True)
        assert content(out) == whole, number
        shutil.rmtree(out)


# --- a real disk that fills up ---


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``small(size)``: a file system of so many bytes; another size later makes it larger or smaller."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int) -> Path:
        remount = ["remount,"] if folder.is_mount() else [""]
        options = f"{remount[0]}size={-(-size // 4096) * 4096}"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        return folder

    yield make
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def weight_bytes(case: TinyCase) -> int:
    """Bytes of NEW's shards, each in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in case.new.glob("*.safetensors"))


def test_a_disk_too_small_for_the_weights(tiny: Tiny, small: Callable[[int], Path]) -> None:
    case = tiny("gpt2")
    out = small(weight_bytes(case) // 2) / "out"
    with pytest.raises(OutputError, match=r"needs .* and only .* are free there: free some space"):
        run(case, out)
    assert beside(out) == []


@pytest.mark.parametrize("room", [3, 4, 6, 10], ids=lambda pages: f"{pages} pages")
def test_a_disk_too_small_for_the_rest(
    room: int, whole: dict[str, Any], tiny: Tiny, small: Callable[[int], Path]
) -> None:
    """The journal, the tokenizer or the report do not fit; the weights' places are kept free from the start."""
    case = tiny("gpt2")
    out = small(weight_bytes(case) + room * 4096) / "out"
    with pytest.raises(OutputError, match="No space left on device") as caught:
        run(case, out)
    assert str(caught.value).endswith("free some space, or choose another disk for OUT.")
    assert not out.exists()
    small(2 * weight_bytes(case))
    run(case, out, resume=True)
    assert content(out) == whole
    assert beside(out) == ["out"]


def test_a_disk_that_somebody_else_fills(whole: dict[str, Any], tiny: Tiny, small: Callable[[int], Path]) -> None:
    case = tiny("gpt2")
    disk = small(2 * weight_bytes(case))
    out, other = disk / "out", disk / "other"

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "transformer.h.2":
            with other.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)

    with pytest.raises(OutputError, match="No space left on device"):
        run(case, out, on_progress=on_progress)
    assert beside(out) == ["out.partial", "out.partial.journal"]
    with pytest.raises(OutputError, match="No space left on device"):
        run(case, out, resume=True)
    assert beside(out) == ["out.partial", "out.partial.journal"]
    other.unlink()
    run(case, out, resume=True)
    assert content(out) == whole
