"""All rows of the layouts, by kind."""

from layout_cases import Case
from layout_cases_chat import CHAT, TOOLS
from layout_cases_choice import CHOICE
from layout_cases_labelled import LABELLED
from layout_cases_marks import MARKS
from layout_cases_media import MEDIA
from layout_cases_pairs import PAIRS, PLAIN, PREFERENCES
from layout_cases_questions import QUESTIONS
from layout_cases_safety import ATTACKS

__all__ = ["CASES", "KINDS"]

KINDS: dict[str, tuple[Case, ...]] = {
    "Conversations": (*CHAT, *MARKS),
    "Tools": TOOLS,
    "Images, videos and sounds": MEDIA,
    "A prompt and its answer": PAIRS,
    "Preferences": PREFERENCES,
    "Multiple choice": CHOICE,
    "Questions": QUESTIONS,
    "Safety sets": (*LABELLED, *ATTACKS),
    "Plain text and token ids": PLAIN,
}

CASES = tuple(case for cases in KINDS.values() for case in cases)
