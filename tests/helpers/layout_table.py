"""All rows of the layouts, by kind."""

from layout_cases import Case
from layout_cases_chat import CHAT, TOOLS
from layout_cases_media import MEDIA
from layout_cases_pairs import PAIRS, PLAIN, PREFERENCES
from layout_cases_questions import QUESTIONS
from layout_cases_safety import SAFETY

__all__ = ["CASES", "KINDS"]

KINDS: dict[str, tuple[Case, ...]] = {
    "Conversations": CHAT,
    "Tools": TOOLS,
    "Images, videos and sounds": MEDIA,
    "A prompt and its answer": PAIRS,
    "Preferences": PREFERENCES,
    "Questions and multiple choice": QUESTIONS,
    "Safety sets": SAFETY,
    "Plain text and token ids": PLAIN,
}

CASES = tuple(case for cases in KINDS.values() for case in cases)
