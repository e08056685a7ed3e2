"""Which files next to the weights belong to a model, by their paths.

This is a list of what is copied, because training may leave anything in a folder: optimizer states, logs, results,
arguments, samples. The name of a file says what it is. Code, pictures and data whose names say nothing belong to the
model if another file of the model names them.
"""

import codecs
import re
from collections.abc import Callable, Collection
from pathlib import PurePath

from hpa_merge.custom_code.finding import relative_imports
from hpa_merge.files.weight_names import SUFFIXES

__all__ = [
    "PROCESSOR",
    "TEMPLATES",
    "TOKENIZER",
    "belonging",
    "candidates",
    "holds_what_it_says",
    "is_other_weights",
    "is_read",
]

TOKENIZER = re.compile(
    r"(tokenizer|special_tokens|added_tokens|vocab|merges|spiece|sentencepiece|dict|tekken|normalizer|emoji|byte_maps"
    r"|word_(shape|pronunciation)|spm(_\w+)?|[\w-]+[_-]vocab)[\w.-]*\.(json|txt|model|model\.v\d+|bpe|tiktoken|vocab|tsv)"
    r"|[\w.-]+\.(tiktoken|spm|codes|tokenizer)"
)
TEMPLATES = re.compile(r"chat_template[\w.-]*\.(json|jinja2?|txt)|additional_chat_templates/[\w.-]+\.jinja2?")
PROCESSOR = re.compile(r"(\w+_)?(processor|preprocessor|feature_extractor)[\w.-]*\.json")
"""Files that are read with a model, by their paths in its folder. The names come from transformers' classes."""

CONFIGURATION = re.compile(
    r"[\w.-]*config(uration)?\.json|config[\w.-]*\.json|modules\.json|model_?card\.json"
    r"|(labels?|classes|id2label|label2id|label_?map)\.(json|txt)"
)
OF_TRAINING = re.compile(
    r"(^|[_.-])(train\w*|(fine_?)?tun(e|er|ed|ing)|ds|deepspeed|zero\d*|accelerate|fsdp|megatron|lightning|litgpt|swift"
    r"|axolotl|unsloth|llama_?board|lora|peft|adapter|sft|[dpk]po|grpo|orpo|rl|rlhf|rewards?|rollout\w*|optim\w*|opt"
    r"|sched\w*|sweep|hpo|trial\w*|hyper\w*|hparams|wandb|mergekit|run|job|launch\w*|slurm|cluster|exp|experiment\w*"
    r"|hydra|data\w*|eval\w*|bench\w*|test\w*|loss|lr|grad\w*|logs?|logging|old|bak|backup|prev(ious)?)([_.-]|$)"
)
"""Words in the name of a configuration or a picture that belongs to a run, not to a model."""

TEMPLATE = re.compile(r"[\w.-]+\.jinja2?|(\w+_)?(system|default)_prompt\w*\.(txt|md|json)", re.IGNORECASE)
"""Texts that a model's users put before a conversation."""

TEXT = re.compile(r".+\.(md|markdown|rst|bib|cff)")
LEGAL = re.compile(
    r"("
    r"((un)?licen[cs]es?|copying|readme|model[ _-]?card)"
    r"([ _-]+(?!(keys?|tokens?|secrets?|passwords?|credentials?|servers?|private|internal|requests?)([\W_]|$))[^\W_]+)*"
    r"|copyright|notices?|authors|citation|terms|changelog|acknowledge?ments?|attributions?|credits|disclaimers?|patents?"
    r"|third[ _-]?party[ _-]?(notices?|licen[cs]es?)|((acceptable|responsible|prohibited)[ _-])?(use|usage)[ _-]policy"
    r"|([^\W_]+(\.\d+)?[ _-]){1,6}(licen[cs]es?|notices|use[ _-]policy|(licen[cs]e|community)[ _-]agreement)"
    r"|([^\W_]+[ _-]){0,3}terms[ _-]of[ _-](use|service)"
    r")([ _.-]v?\d[\d.]*)?(\.(txt|pdf|html?))?",
    re.IGNORECASE,
)
"""Texts for people: all files in a text format, and files with the name of a licence or the like, such as
``LICENSE-APACHE`` and ``Gemma-License.txt``. A name that only contains such a word (``license_key``) does not count."""

BINARY = (
    *(
        b"\x80",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"\x1f\x8b",
        b"BZh",
        b"\xfd7zXZ",
        b"\x28\xb5\x2f\xfd",
        b"7z\xbc\xaf",
        b"Rar!",
    ),
    *(b"\x89HDF", b"GGUF", b"\x93NUMPY", b"SQLite format 3"),
)
"""First bytes of pickles, archives (torch.save's too), and files of weights and data. None of them is a side file."""

PICTURE = re.compile(r".+\.(png|jpe?g|gif|svg|webp|bmp|ico|mp4|webm|mp3|wav|flac|ogg|pdf)", re.IGNORECASE)
PICTURES = re.compile(r"assets?|images?|imgs?|figures?|figs?|docs?|media|pics?|pictures?|resources?|static|examples?")
"""Folders for the pictures of a model card; elsewhere, the card has to name a picture."""

CODE = re.compile(
    r"(modeling|configuration|tokenization|processing|image_processing|video_processing|feature_extraction)_\w+\.py"
    r"|handler\.py|custom_generate/\w+\.py"
)
"""The model's own code, by the names that transformers gives it; ``auto_map`` names further files."""

DATA = (".json", ".txt", ".model")
"""Suffixes of the model's own data whose names say nothing; a configuration has to name them, or their folder."""

ARRAYS = {".pkl", ".pickle", ".npz", ".npy"}
"""Suffixes of files that may be pickles: like weights they are not copied, but they do not show another model."""

OTHER_FORMATS = {"onnx", "original", "gguf", "openvino", "coreml", "tflite"}
"""Subfolders that hold the model before the merge in another format, whatever the names of their files."""

RUNS = re.compile(
    r"(checkpoint|global_?step|step|epoch|iter|trial|rank)s?[_-]?\d+.*|(latest|best|last|tmp|final)[_-]checkpoint.*|runs?|wandb"
    r"|mlruns|\w*_logs|logs?|tensorboard|ray_results|swanlog|aim|profile\w*|outputs?|__pycache__"
)
"""Subfolders of a run, whatever they hold."""

STATE = re.compile(r"trainer_state\.json|events\.out\.tfevents.*|latest|latest_checkpointed_iteration\.txt")
"""Files that, like weights, show that a subfolder is another checkpoint or belongs to a run."""

BETWEEN = re.compile(r"""[\s()<>\[\]{}"'`/\\|,;:=?#*!]+""")
"""Separates the names of files in a text."""


def is_read(path: PurePath) -> bool:
    """Whether the file is read with a model: its configuration, tokenizer, processor, or templates."""
    name, whole = path.name, path.as_posix()
    if CONFIGURATION.fullmatch(name) and not OF_TRAINING.search(name.lower()):
        return True
    return any(pattern.fullmatch(name) or pattern.fullmatch(whole) for pattern in (TOKENIZER, TEMPLATES, PROCESSOR))


def is_other_weights(path: PurePath) -> bool:
    """Whether a file holds weights in any format, or is an index of such files (``pytorch_model.bin.index.json``)."""
    other_format = len(path.parts) > 1 and path.parts[0].lower() in OTHER_FORMATS
    return other_format or _suffix(path) in SUFFIXES | ARRAYS


def holds_what_it_says(path: PurePath, content: bytes) -> bool:
    """Whether a file holds what its name says, judged by its beginning: weights and archives may have any name.

    Args:
        content: the beginning; for a text, at least the first thousand bytes.
    """
    if content.startswith(BINARY) or content[257:262] == b"ustar":
        return False
    if path.suffix.lower() in (".pdf", ".htm", ".html") or not LEGAL.fullmatch(path.name):
        return True
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(content)
    except UnicodeDecodeError:
        return False


def candidates(paths: Collection[PurePath]) -> set[PurePath]:
    """The files of a folder that could belong to a merged model, judged by their names.

    Hidden files do not belong, nor do files in a subfolder of a run or in one with weights, which holds another model,
    or this one at another step.

    Args:
        paths: every file, relative to the folder.
    """
    others = {path.parent for path in paths if len(path.parts) > 1 and _is_of_another(path)}
    return {path for path in paths if others.isdisjoint(path.parents) and _may_belong(path)}


def belonging(paths: Collection[PurePath], read: Callable[[PurePath], str]) -> set[PurePath]:
    """The candidates that belong; code, pictures and data belong if another file of the model names them.

    Args:
        paths: as for :func:`candidates`.
        read: gives a file as text, empty if it cannot be read. The order of its calls is fixed.
    """
    found = candidates(paths)
    ordered = sorted(found)
    settings = {part for path in ordered if CONFIGURATION.fullmatch(path.name) for part in read(path).split('"')}
    code = _code(found, read)
    texts = {name.strip(".") for path in ordered if TEXT.fullmatch(path.name) for name in BETWEEN.split(read(path))}
    by_name = {path for path in found if _is_of_a_kind(path)}
    shown = {path for path in found if _is_picture(path) and (_is_among_pictures(path) or _is_shown(path, texts))}
    data = {path for path in found if path.suffix in DATA and _is_named(path, settings)}
    return by_name | code | shown | data


def _may_belong(path: PurePath) -> bool:
    """Whether a file's own path allows that it belongs to a model."""
    if any(part.startswith(".") for part in path.parts) or is_other_weights(path):
        return False
    if any(RUNS.fullmatch(part.lower()) for part in path.parts[:-1]):
        return False
    of_training = OF_TRAINING.search(path.name.lower()) or STATE.fullmatch(path.name)
    kind = path.suffix == ".py" or ((_is_picture(path) or path.suffix in DATA) and not of_training)
    return kind or _is_of_a_kind(path)


def _is_of_a_kind(path: PurePath) -> bool:
    """Whether the name alone shows that a file belongs to a model."""
    name = path.name
    return is_read(path) or any(kind.fullmatch(name) for kind in (TEMPLATE, TEXT, LEGAL))


def _is_of_another(path: PurePath) -> bool:
    """Whether a file shows that its folder holds another model or a run."""
    return STATE.fullmatch(path.name) is not None or _suffix(path) in SUFFIXES


def _suffix(path: PurePath) -> str:
    """The suffix in lower case; for an index, the suffix of its files."""
    return PurePath(path.name.lower().removesuffix(".index.json")).suffix


def _is_picture(path: PurePath) -> bool:
    return PICTURE.fullmatch(path.name) is not None and not LEGAL.fullmatch(path.name)


def _is_shown(path: PurePath, texts: Collection[str]) -> bool:
    """Whether a text has a picture's name, or all of its parts if the name has blanks."""
    return all(part in texts for part in BETWEEN.split(path.name) if part)


def _is_named(path: PurePath, settings: Collection[str]) -> bool:
    """Whether a configuration names a file by its path, or a folder above it; ``settings``: its texts."""
    names = (path.as_posix(), *(parent.as_posix() for parent in path.parents[:-1]))
    return any(name in settings or f"{name}/" in settings for name in names)


def _is_among_pictures(path: PurePath) -> bool:
    return any(PICTURES.fullmatch(part.lower()) for part in path.parts[:-1])


def _code(paths: Collection[PurePath], read: Callable[[PurePath], str]) -> set[PurePath]:
    """The model's own code: files known by name, named by a configuration's ``auto_map``, or imported by those."""
    ordered = sorted(paths)
    named = {module for path in ordered if path.name.endswith("config.json") for module in _modules(read(path))}
    waiting = [
        path
        for path in ordered
        if path.name.endswith(".py") and (CODE.fullmatch(path.as_posix()) or path.as_posix() in named)
    ]
    code: set[PurePath] = set()
    while waiting:
        path = waiting.pop()
        if path in code or path not in paths:
            continue
        code.add(path)
        waiting += map(type(path), relative_imports(read(path), path.as_posix()))
    return code


def _modules(text: str) -> set[str]:
    """Paths of the files that a configuration's ``auto_map`` names."""
    if '"auto_map"' not in text:
        return set()
    names = re.findall(r'"(?:[\w./-]+--)?([\w.]+)\.\w+"', text)
    return {f"{name.replace('.', '/')}.py" for name in names}
