"""Media: where records have images, videos and sounds, and what is refused."""

from typing import Any

from layout_cases import PNG64, Case

__all__ = ["MEDIA"]

NO = {"role": "assistant", "content": "No."}
HUMAN, GPT = {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "No."}
SEEN = "user: [image a.png] | What? / assistant: No."


def asked(*parts: Any, **more: Any) -> tuple[dict[str, Any], ...]:
    return ({"messages": [{"role": "user", "content": list(parts)}, NO], **more},)


def told(content: str, **more: Any) -> tuple[dict[str, Any], ...]:
    return ({"messages": [{"role": "user", "content": content}, NO], **more},)


def paired(**fields: Any) -> tuple[dict[str, Any], ...]:
    return ({"question": "What?", "answer": "No.", **fields},)


WHAT = {"type": "text", "text": "What?"}
TWO_FOR_ONE = (
    "the turns mark a place for an image 1 times, but the images number {}: "
    'write one "<image>" or one {{"type": "image"}} for each image of the sample.'
)

MEDIA = (
    Case(
        "LLaVA",
        "LLaVA, ShareGPT4V",
        ({"id": "1", "image": "a.png", "conversations": [HUMAN, GPT]},),
        SEEN,
        passed=("id",),
    ),
    Case(
        "several images in their places",
        "LLaVA-OneVision, MMC4",
        (
            {
                "images": ["a.png", "b.png"],
                "conversations": [{"from": "human", "value": "First <image>, then\n<image>"}, GPT],
            },
        ),
        "user: First | [image a.png] | , then | [image b.png] / assistant: No.",
    ),
    Case(
        "The Cauldron",
        "The Cauldron",
        (
            {
                "images": [{"bytes": None, "path": "a.png"}],
                "texts": [{"user": "What?", "assistant": "No.", "source": "x"}],
            },
        ),
        SEEN,
        passed=("source",),
    ),
    Case(
        "a place in capitals",
        "one's own files",
        told("What? <IMAGE>", images=["a.png"]),
        "user: What? | [image a.png] / assistant: No.",
    ),
    Case(
        "numbered places",
        "Phi, Mantis",
        told("<|image_2|> or <|image_1|>?", images=["a.png", "b.png"]),
        "user: [image b.png] | or | [image a.png] | ? / assistant: No.",
    ),
    Case(
        "numbered places without a space",
        "Mantis, one's own files",
        told("<image2> or <image1>?", images=["a.png", "b.png"]),
        "user: [image b.png] | or | [image a.png] | ? / assistant: No.",
    ),
    Case(
        "an image in HTML",
        "notebooks, forums",
        told("What is in <img src='a.png'> ?"),
        refused='turn 1 (user) has <img src=\'a.png\'>, which would be fed as words: write "<image>", "<video>" or '
        '"<audio>" where a medium stands, and name its file next to the turns, as in "image".',
        note="so is one in Markdown; in an answer, and of an address on the web, both are text",
    ),
    Case(
        "a place of another program",
        "Kosmos, one's own files",
        told("<image_placeholder>What?", images=["a.png"]),
        refused='turn 1 (user) has <image_placeholder>, which would be fed as words: write "<image>", "<video>" or '
        '"<audio>" where a medium stands, and name its file next to the turns, as in "image".',
    ),
    Case(
        "images without a place",
        "LLaMA-Factory, ms-swift",
        told("What?", images=["a.png"]),
        SEEN,
        note="they stand in front of the first user turn",
    ),
    Case(
        "images of a message",
        "Ollama",
        ({"messages": [{"role": "user", "content": "What?", "images": ["a.png"]}, NO]},),
        SEEN,
    ),
    Case(
        "an image part",
        "transformers",
        asked({"type": "image", "image": "a.png"}, WHAT),
        SEEN,
    ),
    Case("an image part by path", "transformers", asked({"type": "image", "path": "a.png"}, WHAT), SEEN),
    Case("image places next to images", "TRL", asked({"type": "image"}, WHAT, images=["a.png"]), SEEN),
    Case(
        "a part of file:// and pixels",
        "Qwen2-VL",
        asked({"type": "image", "image": "file://a.png", "min_pixels": 3136}, WHAT),
        SEEN,
        passed=("min_pixels",),
    ),
    Case("parts without a type", "Qwen-VL", asked({"image": "a.png"}, {"text": "What?"}), SEEN),
    Case(
        "an image_url part",
        "OpenAI",
        asked({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG64}", "detail": "low"}}, WHAT),
        "user: [image of 73 bytes] | What? / assistant: No.",
        passed=("detail",),
    ),
    Case(
        "an image_url part with a file",
        "vLLM",
        asked({"type": "image_url", "image_url": {"url": "file:{folder}/a.png"}}, WHAT),
        SEEN,
    ),
    Case(
        "an image_url part with a URL",
        "OpenAI",
        asked({"type": "image_url", "image_url": {"url": "https://x.org/a.png"}}, WHAT),
        refused="the image https://x.org/a.png is a URL, and URLs are never fetched: save it as a file and give its "
        "path.",
    ),
    Case(
        "a base64 source",
        "Anthropic",
        asked({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG64}}, WHAT),
        "user: [image of 73 bytes] | What? / assistant: No.",
        passed=("media_type", "type"),
    ),
    Case(
        "an image as base64",
        "VLMEvalKit's TSV",
        paired(image=PNG64),
        "user: [image of 73 bytes] | What? / assistant: No.",
    ),
    Case(
        "an image as path and bytes",
        "Hugging Face datasets",
        paired(image={"bytes": None, "path": "a.png"}),
        SEEN,
    ),
    Case("an array of such images", "Hugging Face datasets", paired(images=[{"bytes": None, "path": "a.png"}]), SEEN),
    Case(
        "an image in its own folder",
        "one's own files",
        paired(image_path="pics/c.jpg"),
        "user: [image pics/c.jpg] | What? / assistant: No.",
    ),
    Case("img_path", "one's own files", paired(img_path="a.png"), SEEN),
    Case("image_file", "one's own files", paired(image_file="a.png"), SEEN),
    Case("file_name", "Hugging Face's image folders", paired(file_name="a.png"), SEEN),
    Case("img", "VizWiz, one's own files", paired(img="a.png"), SEEN),
    Case("an image that is an empty string", "LLaVA's text samples", paired(image=""), "user: What? / assistant: No."),
    Case(
        "an image in the text",
        "Qwen-VL",
        told("Picture 1: <img>a.png</img>\nWhat?"),
        "user: Picture 1: | [image a.png] | What? / assistant: No.",
    ),
    Case(
        "an image in the text that is not there",
        "Qwen-VL",
        told("<img>gone.png</img>What?"),
        refused="the image gone.png is not a file in {folder}: give its path relative to that folder, or name the "
        "folder "
        "of the images with --image-folder.",
    ),
    Case(
        "a place without an image",
        "files whose images were left out",
        told("<image>\nWhat?"),
        refused=TWO_FOR_ONE.format(0),
    ),
    Case(
        "a place in Alpaca's text without an image",
        "files whose images were left out",
        ({"instruction": "<image>What?", "input": "", "output": "No."},),
        refused=TWO_FOR_ONE.format(0),
    ),
    Case(
        "fewer places than images",
        "one's own files",
        told("<image>What?", images=["a.png", "b.png"]),
        refused=TWO_FOR_ONE.format(2),
    ),
    Case(
        "<image> in code that is answered",
        "SVG, RSS and HTML tasks",
        ({"instruction": "Write a feed.", "output": "<image>\n<url>x</url>\n</image>"},),
        "user: Write a feed. / assistant: <image>\n<url>x</url>\n</image>",
        note="in an answer, and where the tag is closed, it is text",
    ),
    Case(
        "another model's token",
        "files made for one model",
        told("<|vision_start|><|image_pad|><|vision_end|>What?", images=["a.png"]),
        refused='turn 1 (user) has <|vision_start|>, which is one model\'s own token for a medium: write "<image>", '
        '"<video>" or "<audio>" where one stands, and name its file.',
    ),
    Case(
        "two images of one kind",
        "merged files",
        paired(image="a.png", image_path="b.png"),
        refused='"image" and "image_path" hold media of one kind: choose one with --ignore-field for the other, or '
        "write "
        "all as one array.",
    ),
    Case(
        "an image that only its data set can look up",
        "VQAv2's and OK-VQA's questions",
        ({"image_id": 458752, "question": "What?", "question_id": 1, "answer": "No."},),
        refused='"image_id" names a medium by a number, and the record does not hold it: add the image to the '
        "record, or pass it over with --ignore-field image_id.",
    ),
    Case(
        "a text next to an image",
        "Hugging Face's image folders",
        ({"file_name": "a.png", "text": "A cat."},),
        refused='"text" stands next to "file_name", and may be the prompt or the answer: say which with --map '
        "prompt=text "
        "or --map answer=text, and have the other in the record too.",
    ),
    Case(
        "pixels",
        "processed data sets",
        ({"input_ids": [1, 2], "pixel_values": [[0.5]]},),
        refused='"pixel_values" holds content that is not read (the record is read as token ids, by '
        '"input_ids"): pass it over with --ignore-field pixel_values.',
    ),
    Case(
        "a video",
        "LLaVA-Video, VideoChatGPT",
        ({"video": "v.mp4", "conversations": [HUMAN, GPT]},),
        "user: [video v.mp4] | What? / assistant: No.",
        note="LLaVA's `<image>` marks the video where there is no image",
    ),
    Case(
        "videos",
        "LLaMA-Factory, ms-swift",
        told("<video>What?", videos=["v.mp4"]),
        "user: [video v.mp4] | What? / assistant: No.",
    ),
    Case(
        "media of several kinds",
        "omni models",
        told("What?", images=["a.png"], videos=["v.mp4"], audios=["s.wav"]),
        "user: [image a.png] | [video v.mp4] | [audio s.wav] | What? / assistant: No.",
    ),
    Case(
        "a video part",
        "Qwen2-VL",
        asked({"type": "video", "video": "file:{folder}/v.mp4", "fps": 1.0}, WHAT),
        "user: [video v.mp4] | What? / assistant: No.",
        passed=("fps",),
    ),
    Case(
        "audios",
        "LLaMA-Factory, ms-swift",
        told("<audio>What?", audios=["s.wav"]),
        "user: [audio s.wav] | What? / assistant: No.",
    ),
    Case(
        "an input_audio part",
        "OpenAI",
        asked({"type": "input_audio", "input_audio": {"data": PNG64, "format": "wav"}}, WHAT),
        "user: [audio of 73 bytes] | What? / assistant: No.",
        passed=("format",),
    ),
    Case(
        "a video of frames",
        "Qwen2-VL",
        asked({"type": "video", "video": ["a.png", "b.png"]}, WHAT),
        refused="the video a.png is an image by its name: name the field by what it holds, and give the frames of a "
        "video as one file.",
    ),
    Case(
        "images in parts, and once more next to them",
        "TRL",
        asked({"type": "image", "image": "a.png"}, WHAT, images=["a.png"]),
        SEEN,
    ),
    Case(
        "images in parts, and others next to them",
        "merged files",
        asked({"type": "image", "image": "a.png"}, WHAT, images=["b.png"]),
        refused=TWO_FOR_ONE.format(1).replace("1 times", "0 times"),
    ),
    Case(
        "a decoded sound",
        "Hugging Face datasets",
        paired(audio={"array": [0.0, 0.1], "sampling_rate": 16000, "path": "s.wav"}),
        refused='"audio" holds a sound as numbers, decoded already: save it as a file and give its path, or keep its '
        "bytes.",
    ),
    Case(
        "a place without a video",
        "files whose videos were left out",
        told("<video>What?"),
        refused="the turns mark a place for a video 1 times, but the videos number 0: "
        'write one "<video>" or one {"type": "video"} for each video of the sample.',
    ),
)
