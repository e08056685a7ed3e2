"""The tokenizer or the processor of a checkpoint folder: local files only, and its own code only if that is trusted."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor, AutoTokenizer, dynamic_module_utils
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES  # type: ignore[attr-defined]
from transformers.processing_utils import ProcessorMixin
from transformers.utils.import_utils import is_protobuf_available, is_sentencepiece_available

from hpa_merge.custom_code.failing import first_line, place_of
from hpa_merge.custom_code.finding import find_references, untrusted
from hpa_merge.custom_code.running import is_running
from hpa_merge.errors import CalibrationError, CheckpointError, extra
from hpa_merge.files.parsing import TOKENIZER, read_json
from hpa_merge.records import Sample
from hpa_merge.records.sample import MediaKind

__all__ = [
    *("PARTS", "WORDS", "is_multimodal", "load_processor", "load_tokenizer", "panics_as_errors"),
    *("processor_template", "reason"),
]

WORDS: dict[MediaKind, str] = {"image": "images", "video": "videos", "audio": "sounds"}
"""What messages call media of a kind."""

PARTS: dict[MediaKind, str] = {"image": "image_processor", "video": "video_processor", "audio": "feature_extractor"}
"""The part of a processor that takes media of a kind."""

FILE_OF: dict[MediaKind, str] = {
    "image": "preprocessor_config.json",
    "video": "video_preprocessor_config.json",
    "audio": "preprocessor_config.json",
}
"""Where it is described, if not in processor_config.json."""

_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
_FILES = ("tokenizer", "processor", "preprocessor", "chat_template", "special_tokens", "added_tokens", "vocab")

FILE_BYTES = 2**28
"""The longest file of a tokenizer or a processor: 256 MiB; of real ones, the longest has 40 MB."""

TOKEN_IDS = 10**7
"""The highest id of a token; a tokenizer makes a table of that length."""


def load_tokenizer(folder: Path, source: str, **options: Any) -> Any:
    """The tokenizer in ``folder``; ``source`` names the sample that needs it, ``options`` are ``AutoTokenizer``'s.

    Raises:
        CheckpointError: there is none, or it cannot be loaded.
    """
    try:
        tokenizer = _load(AutoTokenizer, folder, **options)
    except Exception as error:  # whatever a broken folder makes transformers raise
        if _lacks_sentencepiece(folder):
            raise CheckpointError(
                f"{folder} has its tokenizer in tokenizer.model alone, and {source} needs it: install what reads that "
                "file, with pip install sentencepiece protobuf."
            ) from error
        _check_trusted(folder, "tokenizer", "AutoTokenizer", error)
        raise CheckpointError(
            f"{folder} has no tokenizer that transformers can load, and {source} needs one ({reason(error)}): "
            "add its files to the folder, or give input_ids."
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # some classes come up empty where their files are missing
        raise CheckpointError(
            f"{folder} has no tokenizer files, and {source} needs a tokenizer: add tokenizer.json, or give input_ids."
        )
    return tokenizer


def load_processor(folder: Path, sample: Sample) -> Any:
    """The processor in ``folder``, with a tokenizer and what takes the media of ``sample``.

    A processor that cannot be loaded whole is loaded without its video processor, where it has one and the sample has
    no video: it alone needs torchvision.

    Raises:
        CalibrationError: there is only a tokenizer, so that the sample does not fit the checkpoint.
        CheckpointError: there is none, or it cannot be loaded.
    """
    kinds = dict.fromkeys(media.kind for media in sample.media)
    has = " and ".join(WORDS[kind] for kind in kinds)
    try:
        processor = _load(AutoProcessor, folder)
    except Exception as error:  # as above
        try:
            if "video" in kinds:
                raise
            processor = _load(_image_only_class(folder), folder)
        except Exception:
            _check_trusted(folder, "processor", "AutoProcessor", error)
            more = f"{extra('media')} or " * ("video" in kinds and find_spec("torchvision") is None)
            raise CheckpointError(
                f"{folder} has no processor that transformers can load, and {sample.source} has {has} "
                f"({reason(error)}): add its files to the folder, {more}install what it asks for, or remove the {has}."
            ) from error
    for kind in kinds:
        if getattr(processor, PARTS[kind], None) is None or getattr(processor, "tokenizer", None) is None:
            raise CalibrationError(
                f"{sample.source} has {WORDS[kind]}, and {folder} has no {PARTS[kind].replace('_', ' ')}: remove the "
                f"{WORDS[kind]}, or add {FILE_OF[kind]} to the folder if the model takes {WORDS[kind]}."
            )
    return processor


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Turn what is not an ``Exception`` into one: the tokenizers library panics on a tokenizer.json that contradicts
    itself, and code of a checkpoint may call ``exit()``.

    Raises:
        ValueError: the block panicked, or ended the program.
    """
    try:
        yield
    except SystemExit as error:
        raise ValueError("it ends the program") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of pyo3, which does not export it
            raise
        raise ValueError(f"the tokenizers library fails: {error}") from error


def _load(loader: Any, folder: Path, **options: Any) -> Any:
    """Load without the checkpoint's own code, unless that is running, and without a question on the terminal:
    transformers' processors do not pass ``trust_remote_code`` to all of their parts, and ask about the others.
    """
    _check_files(folder)
    patience = dynamic_module_utils.TIME_OUT_REMOTE_CODE
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    try:
        with panics_as_errors():
            return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=is_running(), **options)
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience


def _check_files(folder: Path) -> None:
    """Check that no file makes a library wait, or take memory without bounds.

    Raises:
        ValueError: one does.
    """
    for path in folder.glob("*"):
        if path.name.startswith(_FILES) and path.exists() and not path.is_dir():
            if not path.is_file():
                raise ValueError(f"{path.name} is a pipe or a device")
            if path.stat().st_size > FILE_BYTES:
                raise ValueError(f"{path.name} is longer than {FILE_BYTES} bytes")
    for name in ("tokenizer.json", "vocab.json"):
        content = _read_json(folder / name)
        model = content.get("model")
        vocabulary = model.get("vocab") if isinstance(model, dict) else content
        numbers = vocabulary.values() if isinstance(vocabulary, dict) else ()
        if any(isinstance(number, int) and number > TOKEN_IDS for number in numbers):
            raise ValueError(f"{name} has a token id over {TOKEN_IDS}")


def _lacks_sentencepiece(folder: Path) -> bool:
    """Whether the tokenizer is one that only SentencePiece reads, and that is not installed."""
    alone = (folder / "tokenizer.model").is_file() and not (folder / "tokenizer.json").is_file()
    return alone and not (is_sentencepiece_available() and is_protobuf_available())


def _image_only_class(folder: Path) -> Any:
    """The folder's processor class without its video processor.

    ``ProcessorMixin`` loads and keeps the parts that ``get_attributes`` names, which it reads off ``__init__``.

    Raises:
        ValueError: the class is not known, or has no video processor; ImportError: it cannot be imported.
    """
    processor_class = getattr(transformers, _processor_class_name(folder), None)
    if not (isinstance(processor_class, type) and issubclass(processor_class, ProcessorMixin)):
        raise ValueError(f"{folder} names no processor class")
    kept = [attribute for attribute in processor_class.get_attributes() if attribute != "video_processor"]
    if kept == processor_class.get_attributes():
        raise ValueError(f"{processor_class.__name__} has no video processor")
    return type(processor_class.__name__, (processor_class,), {"get_attributes": classmethod(lambda cls: kept)})


def _processor_class_name(folder: Path) -> str:
    """The name that ``AutoProcessor`` would find: in the processor's files, the tokenizer's, or by the model's type.

    Raises:
        ValueError: no file names one.
    """
    for file in (*_PROCESSOR_FILES, "tokenizer_config.json"):
        name = _read_json(folder / file).get("processor_class")
        if isinstance(name, str):
            return name
    model_type = _read_json(folder / "config.json").get("model_type")
    if not isinstance(model_type, str) or model_type not in PROCESSOR_MAPPING_NAMES:
        raise ValueError(f"{folder} names no processor class")
    return PROCESSOR_MAPPING_NAMES[model_type]


def is_multimodal(folder: Path) -> bool:
    """Whether the checkpoint has a processor, so that its chat template is a processor's and not a tokenizer's."""
    return any((folder / file).is_file() for file in _PROCESSOR_FILES)


def processor_template(folder: Path) -> str | dict[str, str] | None:
    """The chat template that lies where only processors look; what a tokenizer finds too is not looked for.

    It is in ``processor_config.json``, or in ``chat_template.json``, where it was before 2025; several by their names.
    """
    for file in ("processor_config.json", "chat_template.json"):
        found = _read_json(folder / file).get("chat_template")
        if isinstance(found, str) and found:
            return found
        if isinstance(found, dict) and found and all(isinstance(text, str) for text in found.values()):
            return found
    return None


def _check_trusted(folder: Path, what: str, auto: str, error: Exception) -> None:
    """Raise CheckpointError if ``error`` may come from code of the folder that is not trusted.

    Args:
        what: what could not be loaded.
        auto: transformers' class that loads it.
    """
    named = [each for each in find_references(folder) if not each.of_models]
    needed = "trust_remote_code" in str(error) or any(each.auto == auto for each in named)
    if named and needed and not is_running():
        raise CheckpointError(untrusted(str(folder), what, named)) from error


def reason(error: BaseException) -> str:
    """The first line of ``error``'s message, or its type; with type and place if the checkpoint's own code failed."""
    kind, line, place = type(error).__name__, first_line(error), place_of(error)
    return f"{': '.join(filter(None, [kind, line]))} in {place}" if place else line or kind


def _read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``; empty where there is no such file or no such object in it."""
    try:
        value = read_json(path, TOKENIZER)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
