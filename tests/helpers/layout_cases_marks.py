"""Marks on the messages of a conversation: what is learnt, what is safe, where boxes stand."""

from layout_cases import Case
from layout_cases_chat import HI, NO, messages

__all__ = ["MARKS"]

MARKS = (
    *(
        Case(
            f"an answer that is not learnt, by {name}",
            "OpenAI, Axolotl, ms-swift",
            (
                *messages(HI, {**NO, name: value}),
                *messages({"role": "user", "content": "Go?"}, {**NO, name: not value}),
            ),
            "user: Go? / assistant: No.",
            passed=(name,),
            dropped={"its answer is labelled unsafe, or not wanted": 1},
        )
        for name, value in (("weight", 0), ("loss", False), ("train", False), ("mask", True))
    ),
    Case(
        "messages that say whether they are safe",
        "moderated chats, as safety set",
        (
            *messages({**HI, "is_safe": False}, {**NO, "is_safe": False}),
            *messages({**HI, "is_safe": False}, {**NO, "harmful": False}),
        ),
        "user: Hi? / assistant: No.",
        prompt="user: Hi?",
        references=("No.",),
        purpose="safety",
        dropped={"its answer is labelled unsafe, or not wanted": 1},
        note="a label on a message is that message's",
    ),
    Case(
        "places of boxes",
        "ms-swift's grounding",
        messages(
            {"role": "user", "content": "Where is <ref-object>?"},
            {"role": "assistant", "content": "At <bbox>."},
            objects={"ref": ["the cat"], "bbox": [[1, 2, 3, 4]]},
        ),
        refused='turn 1 (user) has <ref-object>, which ms-swift fills from "objects": write the object\'s name, or its '
        "box as your model writes one, in its place.",
    ),
)
