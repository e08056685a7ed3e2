"""What a field's name says: tables of names, and how a name is compared with them."""

import re
from functools import lru_cache
from typing import Any

__all__ = [
    "BAD",
    "CATEGORY",
    "GOOD",
    "MEDIA_NAMES",
    "NEUTRAL_MEDIA",
    "carries_nothing",
    "fold",
    "is_choice",
    "is_media_id",
    "is_safety_label",
    "is_said",
    "is_tensor",
    "is_verdict",
    "names_a_thing",
]

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OTHER = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=4096)
def fold(name: str) -> str:
    """The name in lower case, its words joined by ``_``: ``answerKey``, ``Answer Key`` and ``answer-key`` are one."""
    return _OTHER.sub("_", _HUMP.sub("_", name).casefold()).strip("_") or name


CATEGORY = (
    *("category", "harmful_category", "harm_category", "semantic_category", "category_name", "risk_area"),
    *("types_of_harm",),
)
"""A category of the prompt, by which a safety set is balanced; the first of these that is filled."""

MEDIA_NAMES = {
    "image": (
        *("image", "images", "image_path", "image_paths", "img_path", "img_paths", "image_file", "image_files"),
        *("image_file_name", "image_filename", "image_name", "img", "imgs", "img_name", "imgname", "img_file"),
        *("image_url", "image_urls", "image_list", "image_bytes", "image_base64", "base64_image", "decoded_image"),
        *("picture", "pictures", "pic", "photo", "jpg", "jpeg", "png", "webp"),
    ),
    "video": (
        *("video", "videos", "video_path", "video_paths", "video_file", "video_url", "video_name", "clip", "mp4"),
    ),
    "audio": (
        *("audio", "audios", "audio_path", "audio_paths", "audio_file", "audio_url", "sound", "speech", "wav", "mp3"),
    ),
}
"""The fields that hold a medium, by its kind."""

NEUTRAL_MEDIA = ("file_name", "filename", "file", "file_path", "path", "media", "media_path")
"""Fields that hold a medium of any kind, which the ending of the file's name says."""

_ABOUT = """
id ids idx index ind indices uid uuid guid hash md5 sha sha1 sha256 key pid qid rid cid
source sources src origin provenance dataset datasets data_source dataset_name corpus collection subset set_name
config url urls uri link links homepage website domain site license licence copyright author authors annotator
worker user_name author_name created updated timestamp time date datetime year month version revision commit split
splits fold phase datatype language languages lang locale lang_code category categories subcategory subcategories
topic topics subtopic subject subjects subject_name topic_name category_name model_name task_name skill skills grade
level difficulty type types subtype kind class classes class1 class2 class3 group groups tag tags risk_area model
models generator engine finish_reason stop_reason status quality rank ranking score scores rating ratings confidence
probability usage count counts length lengths num_tokens width height size format mimetype detail question_types
answer_types question_source image_source prompt_source response_source creator contributor reward rewards logprobs
"""

_NOTHING = frozenset(_ABOUT.split())

_NOTHING_ENDINGS = (
    *("_id", "_ids", "_idx", "_index", "_uuid", "_uid", "_hash", "_sha256", "_md5", "_url", "_urls", "_uri", "_link"),
    *("_date", "_time", "_timestamp", "_at", "_lang", "_language", "_split", "_version", "_license", "_dataset"),
    *("_score", "_scores", "_rating", "_confidence", "_width", "_height", "_size", "_count", "_category", "_topic"),
    *("_model", "_type", "_level", "_source", "_categories", "_set_name", "_of_harm"),
    *("_lengths", "_counts", "_indices"),
)

_TENSORS = re.compile(r"pixel_values|input_features|grid_thw|(^|_)embed(s|ding|dings)?$|^(input|token)_ids$")

_SAFETY = re.compile(
    r"safe|harm|toxi|refus|jailbr|compl(y|ian)|malicious|benign|violat|unethic|severity|danger|moderat|flagged|attack"
    r"|offens|hate|^labels?$|^kto_tag$"
)

# Names of what someone judged: of use only where the value is a number, yes or no.
_JUDGES = re.compile(
    r"(^|_)(labels?|judges?|judged|judgements?|judgments?|asr|human|verdicts?|decisions?|flag|wanted|approved|accepted"
    r"|rejected|blocked|allowed|acceptable|bad|good|ok|pass(ed)?|broken|graded?"
    r"|results?|outcome|correct|wrong|bypass(ed)?|leak(ed|s)?|eval|evaluation|class|annotation|hit|detected)(_|$)"
    r"|succe(ss|ed)"
)

GOOD = ("safe", "unharmful", "harmless", "benign", "not_harmful", "non_harmful", "refusal", "desirable")
BAD = ("unsafe", "harmful", "toxic", "malicious", "adversarial", "compliance", "undesirable")
"""What a label says of a prompt or an answer."""

_YES_NO = ("true", "false", "yes", "no", "0", "1", "0.0", "1.0")

_THING = re.compile(
    r"categor|licen[sc]e|copyright|author|creator|contributor|date|time|created|updated|tag|class|harm|skill|dataset"
)

_CHOICE = re.compile(r"[a-z]|(option|choice|op|sol|ending|answer)_?([a-z]|\d{1,2})")

_SAID = frozenset(
    (
        *("prompt", "question", "instruction", "query", "answer", "answers", "response", "output", "completion"),
        *("chosen", "solution", "target", "ground_truth", "final_answer", "answer_key", "correct_answer", "reference"),
        *("label", "labels"),
    )
)

_MEDIA_ID = re.compile(r"^(image|img|video|audio|picture|photo)_?(id|idx|index)s?$")


def carries_nothing(folded: str) -> bool:
    """Whether a field of this name is about the record, and nothing that a model reads."""
    return folded in _NOTHING or folded.endswith(_NOTHING_ENDINGS)


def is_tensor(folded: str) -> bool:
    """Whether numbers of this name are what a model reads."""
    return bool(_TENSORS.search(folded))


def is_said(folded: str) -> bool:
    """Whether a field of this name is a prompt or an answer, even where it holds a number."""
    return folded in _SAID


def is_safety_label(folded: str) -> bool:
    """Whether a field of this name may say that a prompt or an answer is unsafe, or not wanted."""
    return bool(_SAFETY.search(folded)) and not folded.endswith(("category", "categories", "_of_harm"))


def is_verdict(folded: str, value: Any) -> bool:
    """Whether a value may be what someone judged of an answer: a number, yes or no under such a name, or ``unsafe``."""
    said = str(value).strip().casefold().replace(" ", "_").replace("-", "_")
    if isinstance(value, str) and said in (*GOOD, *BAD) and not folded.endswith(("category", "categories")):
        return True
    return bool(_JUDGES.search(folded)) and (isinstance(value, int | float) or said in _YES_NO)


def names_a_thing(folded: str) -> bool:
    """Whether a field of this name holds names of several words: a licence, an author, a category."""
    return bool(_THING.search(folded))


def is_choice(folded: str) -> bool:
    """Whether a field of this name is a column of a choice, such as ``d`` or ``option_4``."""
    return bool(_CHOICE.fullmatch(folded))


def is_media_id(folded: str) -> bool:
    """Whether the field names a medium by a number that only its data set can look up."""
    return bool(_MEDIA_ID.match(folded))
