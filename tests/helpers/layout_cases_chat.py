"""Conversations: OpenAI's messages, ShareGPT's turns, tools, several turns."""

import json
from typing import Any

from layout_cases import Case

__all__ = ["CHAT", "HI", "NO", "TOOLS", "messages"]

HI, NO = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "No."}
HUMAN, GPT = {"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "No."}
SHORT = "user: Hi? / assistant: No."
NOTHING_ANSWERED = (
    'there is no answer, and a model is calibrated with prompt and answer: add it as "response" or as the assistant\'s '
    "last turn"
)


def messages(*turns: Any, **more: Any) -> tuple[dict[str, Any], ...]:
    return ({"messages": list(turns), **more},)


def spoken(*turns: Any, **more: Any) -> tuple[dict[str, Any], ...]:
    return ({"conversations": list(turns), **more},)


CHAT = (
    Case("texts in turn", "UltraChat", ({"id": "1", "data": ["Hi?", "No."]},), SHORT, passed=("id",)),
    Case(
        "input and output of a turn",
        "Capybara",
        ({"source": "a", "conversation": [{"input": "Hi?", "output": "No."}]},),
        SHORT,
        passed=("source",),
    ),
    Case("messages", "OpenAI, TRL, Axolotl", messages(HI, NO), SHORT),
    Case(
        "messages with ids and sources",
        "UltraChat, Tulu",
        messages(HI, NO, id="t-1", source="made up", score=0.5, turns_count=1),
        SHORT,
        passed=("id", "score", "source", "turns_count"),
    ),
    Case(
        "messages in parts",
        "OpenAI, transformers",
        messages(
            {"role": "user", "content": [{"type": "text", "text": "Hi?", "image": None}]},
            {"role": "assistant", "content": [{"type": "text", "text": "No."}]},
        ),
        SHORT,
    ),
    Case(
        "parts of the Responses API",
        "OpenAI",
        messages(
            {"role": "user", "content": [{"type": "input_text", "text": "Hi?"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "No.", "annotations": []}]},
        ),
        SHORT,
    ),
    Case(
        "prompt cache marks in a part",
        "Anthropic",
        messages(
            {"role": "user", "content": [{"type": "text", "text": "Hi?", "cache_control": {"type": "ephemeral"}}]}, NO
        ),
        SHORT,
        passed=("cache_control",),
    ),
    Case(
        "system and developer turns",
        "OpenAI",
        messages({"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In English."}, HI, NO),
        f"system: Be brief. / developer: In English. / {SHORT}",
    ),
    Case(
        "an empty system turn",
        "files that keep a template's default prompt out",
        messages({"role": "system", "content": ""}, HI, NO),
        f"system:  / {SHORT}",
    ),
    Case(
        "a system prompt next to the messages",
        "LLaMA-Factory, ms-swift",
        messages(HI, NO, system="Be brief."),
        f"system: Be brief. / {SHORT}",
    ),
    Case(
        "two system prompts",
        "merged files",
        messages({"role": "system", "content": "Be long."}, HI, NO, system="Be brief."),
        refused='"system" and a system turn of the conversation are two system prompts: keep one.',
    ),
    Case(
        "several turns",
        "UltraChat",
        messages(HI, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Go?"}, NO),
        "user: Hi? / assistant: Yes? / user: Go? / assistant: No.",
        references=("No.",),
    ),
    Case(
        "thoughts apart from the answer",
        "DeepSeek, vLLM",
        messages(HI, {"role": "assistant", "content": "No.", "reasoning_content": "They greet."}),
        "user: Hi? / assistant: (thinks They greet.) | No.",
    ),
    Case(
        "thoughts as a part",
        "Anthropic",
        messages(
            HI,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "They greet.", "signature": "x"},
                    {"type": "text", "text": "No."},
                ],
            },
        ),
        "user: Hi? / assistant: (thinks They greet.) | No.",
        passed=("signature",),
    ),
    Case(
        "a refusal apart from the content",
        "OpenAI",
        messages(HI, {"role": "assistant", "content": None, "refusal": "I will not."}),
        "user: Hi? / assistant: I will not.",
    ),
    Case("from and value under messages", "converted files", messages(HUMAN, GPT), SHORT),
    Case("ShareGPT", "ShareGPT, Vicuna", spoken(HUMAN, GPT, id="x_0"), SHORT, passed=("id",)),
    Case(
        "ShareGPT of other models",
        "ShareGPT",
        spoken({"from": "user", "value": "Hi?"}, {"from": "chatgpt", "value": "No."}),
        SHORT,
    ),
    Case(
        "ShareGPT of Bard and Bing",
        "ShareGPT",
        spoken(HUMAN, {"from": "bard", "value": "Yes?"}, HUMAN, {"from": "bing", "value": "No."}),
        f"user: Hi? / assistant: Yes? / {SHORT}",
    ),
    Case(
        "conversations with role and content",
        "merged files",
        spoken({"role": "human", "content": "Hi?"}, {"role": "model", "content": "No."}),
        SHORT,
    ),
    Case("dialog", "Llama's examples", ({"dialog": [HI, NO]},), SHORT),
    Case(
        "conversation",
        "lmsys-chat, WildChat",
        ({"conversation": [HI, NO], "language": "English"},),
        SHORT,
        passed=("language",),
    ),
    Case(
        "a conversation of pairs", "Firefly, BELLE", ({"conversation": [{"human": "Hi?", "assistant": "No."}]},), SHORT
    ),
    Case(
        "contents and parts",
        "Gemini",
        ({"contents": [{"role": "user", "parts": [{"text": "Hi?"}]}, {"role": "model", "parts": [{"text": "No."}]}]},),
        SHORT,
    ),
    Case("messages as JSON in a column", "CSV and Parquet files", ({"messages": json.dumps([HI, NO])},), SHORT),
    Case(
        "one turn of the user as a text",
        "MT-Bench, SORRY-Bench",
        ({"question_id": 7, "category": "writing", "turns": ["Hi?"]},),
        prompt="user: Hi?",
        purpose="safety",
        category="writing",
        passed=("question_id",),
        refused=f"{NOTHING_ANSWERED}, or let the aligned model answer with hpa-merge calib.",
        refused_test="",
    ),
    Case(
        "several texts that do not say who speaks",
        "DailyDialog, MT-Bench",
        ({"dialog": ["Hi?", "No."]},),
        refused='"dialog" is an array of 2 texts that does not say who speaks: write each as '
        '{"role": "user", "content": "…"}.',
    ),
    Case(
        "a conversation that ends with the user",
        "prompts, files that were cut",
        messages(HI),
        refused=f"{NOTHING_ANSWERED}.",
        refused_test='the prompt has no answer to compare with: add "answer" or "answers".',
    ),
    Case(
        "an unanswered refusal",
        "prompts, as safety set",
        (*messages(HI, NO), *messages(HI)),
        purpose="safety",
        prompt="user: Hi?",
        references=("No.",),
        refused=f"{NOTHING_ANSWERED}, or let the aligned model answer with hpa-merge calib.",
        refused_test="",
    ),
    Case(
        "some without an answer",
        "task files of mixed origin",
        (*messages(HI, NO), *messages(HI), *messages(HI, {"role": "assistant", "content": ""})),
        SHORT,
        dropped={"it has no answer": 2},
        refused_test='the prompt has no answer to compare with: add "answer" or "answers".',
        note="records without an answer are dropped and counted, as long as others have one",
    ),
    Case(
        "an answer that is null",
        "OpenAI's logs, among others that have one",
        (*messages(HI, NO), *messages(HI, {"role": "assistant", "content": None})),
        SHORT,
        dropped={"it has no answer": 1},
        refused_test='the prompt has no answer to compare with: add "answer" or "answers".',
    ),
    Case(
        "an empty turn amid a conversation",
        "ShareGPT",
        spoken(HUMAN, {"from": "gpt", "value": ""}, HUMAN, GPT),
        refused="turn 2 (assistant) is empty: give it a text or remove the sample.",
    ),
    Case(
        "null content without a call",
        "OpenAI's logs",
        messages({"role": "user", "content": None}, NO),
        refused="message 1 has null for content: give a string or an array of text and image parts.",
    ),
    Case(
        "an unknown speaker",
        "role play",
        spoken({"from": "narrator", "value": "It rains."}, GPT),
        refused='turn 1 is not from a known speaker: "from" is one of "user", "human", "prompter", "usr", "assistant", '
        '"gpt", "model", "bot", "ai", "chatgpt", "gpt4", "bing", "bard", "claude", "system", "developer", "tool", '
        '"function", "observation", "ipython", "tool_response", "function_response", "function_call", "tool_call".',
    ),
    Case(
        "messages and another prompt",
        "merged files",
        messages(HI, NO, prompt="Who?", completion="Me."),
        refused='"prompt", "completion" hold content that is not read (the record is read as a conversation, by '
        '"messages"): pass it over with '
        "--ignore-field prompt.",
    ),
    Case(
        "messages and the same prompt",
        "UltraChat",
        messages(HI, NO, prompt="Hi?", prompt_id="ab"),
        SHORT,
        passed=("prompt", "prompt_id"),
        note="what is said once more is passed over",
    ),
    Case(
        "a chat template within a message",
        "rendered files",
        messages({"role": "user", "content": "<|im_start|>user\nHi?<|im_end|>"}, NO),
        refused="turn 1 (user) begins with <|im_start|>, so a chat template is in it already: give what was said "
        "alone, "
        'or prompt and answer as one "text".',
    ),
    Case(
        "Gemini's system instruction",
        "Gemini",
        (
            {
                "systemInstruction": {"parts": [{"text": "Be brief."}]},
                "contents": [
                    {"role": "user", "parts": [{"text": "Hi?"}]},
                    {"role": "model", "parts": [{"text": "No."}]},
                ],
            },
        ),
        "system: Be brief. / user: Hi? / assistant: No.",
    ),
    Case(
        "a note of unknown meaning",
        "one's own files",
        messages(HI, NO, remarks="Answer in verse"),
        refused='"remarks" holds content that is not read (the record is read as a conversation, by '
        '"messages"): pass it over with '
        "--ignore-field remarks.",
    ),
    Case(
        "a note that is ignored",
        "one's own files, with --ignore-field remarks",
        messages(HI, NO, remarks="Answer in verse"),
        SHORT,
        passed=("remarks",),
        options={"ignored": frozenset({"remarks"})},
    ),
    Case(
        "a field of unknown meaning in a message",
        "one's own files",
        messages({**HI, "mood": "quite angry"}, NO),
        refused='"mood" of message 1 holds content that is not read (the record is read as a conversation, by '
        '"messages"): pass it over with --ignore-field mood.',
    ),
)

CALL = {"name": "weather", "arguments": {"town": "Bonn"}}
OFFER = {"name": "weather", "description": "Looks up", "parameters": {"type": "object", "properties": {}}}
WRAPPED = {"type": "function", "function": OFFER}
ASKED = 'user: Rain? / assistant: call weather({"town": "Bonn"})'
RAIN = {"role": "user", "content": "Rain?"}
DRY = {"role": "assistant", "content": "Dry."}

TOOLS = (
    Case(
        "tools and tool calls",
        "OpenAI, transformers",
        messages(
            RAIN,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {**CALL, "arguments": '{"town": "Bonn"}'}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "none"},
            DRY,
            tools=[WRAPPED],
        ),
        f"tools: weather / {ASKED} / tool<c1>: none / assistant: Dry.",
    ),
    Case(
        "an answer that is a call",
        "OpenAI's fine-tuning",
        messages(RAIN, {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]}, tools=[OFFER]),
        f"tools: weather / {ASKED}",
        refused_test='the prompt has no answer to compare with: add "answer" or "answers".',
    ),
    Case(
        "function_call and observation",
        "LLaMA-Factory, Glaive",
        spoken(
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": json.dumps(CALL)},
            {"from": "observation", "value": "none"},
            {"from": "gpt", "value": "Dry."},
            tools=json.dumps([OFFER]),
        ),
        f"tools: weather / {ASKED} / tool: none / assistant: Dry.",
    ),
    Case(
        "tool_call and tool_response",
        "ms-swift",
        messages(
            RAIN,
            {"role": "tool_call", "content": json.dumps(CALL)},
            {"role": "tool_response", "content": "none"},
            DRY,
        ),
        f"{ASKED} / tool: none / assistant: Dry.",
    ),
    Case(
        "a function's answer by its name",
        "OpenAI's older API",
        messages(
            RAIN,
            {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
            {"role": "function", "name": "weather", "content": "none"},
            DRY,
            functions=[OFFER],
        ),
        "tools: weather / user: Rain? / assistant: call weather({}) / tool<weather>: none / assistant: Dry.",
    ),
    Case(
        "tool_use and tool_result",
        "Anthropic",
        messages(
            RAIN,
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "weather", "input": {"town": "Bonn"}}],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "none"}]},
            DRY,
        ),
        f"{ASKED} / tool<c1>: none / assistant: Dry.",
    ),
    Case(
        "a part of unknown type",
        "OpenAI's files",
        messages({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, NO),
        refused='message 1 has a part of type "file" that is no text, image, video or sound: write '
        '{"type": "text", "text": …} or {"type": "image", "image": …}.',
    ),
    Case(
        "a call that cannot be read",
        "one's own files",
        spoken({"from": "human", "value": "Rain?"}, {"from": "function_call", "value": "weather in Bonn"}, GPT),
        refused='"value" of turn 2 has a call that cannot be read: write {"name": "…", "arguments": {…}}, the '
        "arguments "
        "as an object or as its JSON.",
    ),
)
