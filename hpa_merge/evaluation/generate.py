"""Answers of a checkpoint that is loaded here: greedy, in batches, on any device."""

import gc
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, final

import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from hpa_merge.calibration import EncoderProcess, TemplateOptions
from hpa_merge.calibration.loading import reason
from hpa_merge.checkpoint.folder import check_names, find_shards, read_json
from hpa_merge.checkpoint.shard import read_layout
from hpa_merge.config import MAX_FRAMES
from hpa_merge.counting import counted
from hpa_merge.custom_code.failing import blaming, place_of
from hpa_merge.custom_code.finding import Code
from hpa_merge.custom_code.running import running
from hpa_merge.engine.machine import is_out_of_memory
from hpa_merge.errors import CheckpointError, EvaluationError, HPAError, ResourceError
from hpa_merge.evaluation.thinking import MARKS, mark_at_end
from hpa_merge.model.building import bounded_modules, check_counts
from hpa_merge.model.classes import classes_of, read_model_config
from hpa_merge.model.transformers_fixes import repair
from hpa_merge.records import Sample

__all__ = ["LocalModel"]

TOKENS = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
"""What is taken of a checkpoint's generation_config.json."""

PROMPT_END = 16
"""Tokens of a prompt among which the mark is that opens thoughts."""

WINDOW = 8
"""Batches that are sorted by length together, so that little is padded."""


@final
class LocalModel:
    """A checkpoint folder whose model answers; :class:`hpa_merge.evaluation.judges.Answerer`.

    A batch holds prompts of like length, padded on the left (an encoder's on the right) and hidden by the attention
    mask; the arithmetic of a batch may still round otherwise than that of its prompts alone, so that a word which two
    others tie with can change. A batch of one is exactly what the checkpoint's users get.
    """

    def __init__(
        self,
        folder: Path,
        example: Sample,
        *,
        device: torch.device,
        batch_size: int = 8,
        max_new_tokens: int = 128,
        template: TemplateOptions | None = None,
        max_frames: int = MAX_FRAMES,
        side: Path | None = None,
        merge_into: Callable[[Any], None] | None = None,
        code: Code | None = None,
        tensors: Callable[[], dict[str, Tensor]] | None = None,
    ) -> None:
        """Load the checkpoint, in the dtype it is stored in.

        Args:
            example: what the prompts are like: with images, if any has some.
            template: what the user says of the chat template.
            max_frames: frames of a video that are used, at most.
            side: the folder of its tokenizer or processor, if that is another one.
            merge_into: merges an adapter into the loaded model.
            code: the code that the checkpoint brings, which is run; None: none is run.
            tensors: reads the weights, if they are not those of the folder; its config.json is then in ``side``.

        Raises:
            CheckpointError: it cannot be loaded, or weights are missing.
            ResourceError: the memory is full.
        """
        self.window = WINDOW * batch_size
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens
        self._folder, self._device = folder, device
        self._encoder = EncoderProcess.from_checkpoint(side or folder, [example], template, max_frames, code)
        try:
            with blaming(code, f"MODEL {folder}"), running(code):
                self._model = _load(folder, device, code, tensors, side)
                if merge_into is not None:
                    merge_into(self._model)
            end = self._encoder.end
        except BaseException as error:
            self._encoder.close()
            if not is_out_of_memory(error.__cause__ or error):  # the cause, if it is blamed on the checkpoint's code
                raise
            raise ResourceError(
                f"{folder} does not fit into the memory of {device}: choose another --device."
            ) from error
        config = self._model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        self._positions = positions if isinstance(positions, int) and positions > 0 else None
        readers: list[Any] = [self._model.forward, self._model.prepare_inputs_for_generation]
        self._takes = {name for reader in readers for name in inspect.signature(reader).parameters}
        generation: Any = self._model.generation_config
        if generation.eos_token_id is None:
            generation.eos_token_id = end
        if generation.pad_token_id is None:
            ends = generation.eos_token_id
            generation.pad_token_id = ends[0] if isinstance(ends, list) else ends

    def answer(self, prompts: Sequence[Sample]) -> list[str]:
        """An answer for each prompt, without white space around, and without special tokens but the marks of thoughts.

        Where the chat template writes the mark that opens thoughts, the answer begins with it.

        Raises:
            CalibrationError: a prompt cannot be encoded.
            EvaluationError: a prompt leaves no room for an answer.
            ResourceError: the memory is full.
        """
        answers: dict[int, str] = {}
        for places in self._batches(prompts):
            texts = self._answer_batch([prompts[place] for place in places])
            answers.update(zip(places, texts, strict=True))
        return [answers[place] for place in range(len(prompts))]

    def close(self) -> None:
        """Free the model, whoever still holds this object, and end the child that encodes."""
        self._encoder.close()
        del self._model
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _batches(self, prompts: Sequence[Sample]) -> Iterator[list[int]]:
        """Places of prompts with as many images each, the short ones first; those with other media one by one."""

        def images(place: int) -> int:
            return len(prompts[place].images)

        def alone(place: int) -> int:
            return place + 1 if any(media.kind != "image" for media in prompts[place].media) else 0

        def length(place: int) -> int:
            return sum(len(text) for turn in prompts[place].turns for text in turn.texts)

        order = sorted(range(len(prompts)), key=lambda place: (images(place), alone(place), length(place), place))
        for _, group in groupby(order, lambda place: (images(place), alone(place))):
            places = list(group)
            for start in range(0, len(places), self._batch_size):
                yield places[start : start + self._batch_size]

    @torch.inference_mode()
    def _answer_batch(self, prompts: Sequence[Sample]) -> list[str]:
        seq2seq = self._model.config.is_encoder_decoder
        inputs = self._encoder.encode_prompts(prompts, reply=not seq2seq, side="right" if seq2seq else "left")
        length = inputs["input_ids"].shape[1]
        room = self._max_new_tokens
        if self._positions is not None and not seq2seq:
            room = min(room, self._positions - length)
            if room < self._max_new_tokens and len(prompts) > 1:  # each has a room of its own
                return [answer for prompt in prompts for answer in self._answer_batch([prompt])]
            if room < 1:
                raise EvaluationError(
                    f"{prompts[0].source}: the prompt has {counted(length, 'token')}, and "
                    f"{self._folder} has {self._positions} "
                    "positions for it and its answer: shorten or remove it."
                )
        generate: Any = self._model.generate
        placed = {name: self._placed(value) for name, value in inputs.items() if name in self._takes}
        try:
            ids = generate(**placed, max_new_tokens=room)
        except (Exception, SystemExit) as error:  # code of a checkpoint may call exit()
            if is_out_of_memory(error):
                raise ResourceError(
                    f"the memory of {self._device} is full with {counted(len(prompts), 'prompt')} of up "
                    f"to {counted(length, 'token')} at "
                    "once: lower --batch-size."
                ) from error
            raise EvaluationError(
                f"{prompts[0].source}: {self._folder} cannot answer this prompt"
                f"{' and those after it' if len(prompts) > 1 else ''} ({reason(error)}): check that it suits the model."
            ) from error
        if seq2seq:
            return self._encoder.decode(ids, MARKS)
        opened = [mark_at_end(end) for end in self._encoder.decode(inputs["input_ids"][:, -PROMPT_END:], MARKS)]
        answers = self._encoder.decode(ids[:, length:], MARKS)
        return [mark + answer for mark, answer in zip(opened, answers, strict=True)]

    def _placed(self, value: Tensor) -> Tensor:
        dtype = self._model.dtype if value.is_floating_point() else None
        return value.to(self._device, dtype)


def _generation(folder: Path, config: Any) -> GenerationConfig:
    """Greedy, whatever the checkpoint prefers: of its generation_config.json only the tokens' ids are taken.

    The rest of that file says how many answers there are and of which type, what is forced or forbidden, when to stop,
    and more: each of it would change what the models are compared by. A folder without that file has the ids in
    config.json.

    Raises:
        CheckpointError: the file cannot be read.
    """
    text = config.get_text_config(decoder=True)
    if (folder / "generation_config.json").exists():
        theirs = read_json(folder, "MODEL", "generation_config.json")
    else:
        theirs = {name: getattr(text, name, getattr(config, name, None)) for name in TOKENS}
    vocabulary = getattr(text, "vocab_size", None)
    most = vocabulary if isinstance(vocabulary, int) else 2**31
    chosen: dict[str, Any] = {}
    for name in TOKENS:
        given = theirs.get(name)
        listed = given if isinstance(given, list) else [given]
        ids = [number for number in listed if type(number) is int and 0 <= number < most]  # -1 stands for none
        if ids:
            chosen[name] = ids if name == "eos_token_id" else ids[0]
    return GenerationConfig(do_sample=False, num_beams=1, **chosen)


def _tensors(folder: Path, config: dict[str, Any]) -> int:
    """How many tensors with bytes the folder has; 0 where that cannot be read, which transformers then says."""
    try:
        shards, _ = find_shards(folder, "MODEL", config)
        return sum(info.nbytes > 0 for shard in shards for info in read_layout(folder, "MODEL", shard))
    except CheckpointError:
        return 0


def _load(
    folder: Path,
    device: torch.device,
    code: Code | None,
    read: Callable[[], dict[str, Tensor]] | None,
    side: Path | None,
) -> PreTrainedModel:
    """The model by the class that its config.json names: safetensors only, and the checkpoint's own code only if given.

    Args:
        code: as in :class:`LocalModel`.
        read: reads the weights, if they are not those of the folder.
        side: the folder of the config.json that belongs to the weights that ``read`` gives.

    Raises:
        CheckpointError: it cannot be loaded, or is not whole.
    """
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is no checkpoint folder (it has no config.json): check the path.")
    described = folder if read is None or side is None else side
    raw = read_json(described, "MODEL", "config.json")
    given = None if read is None else read()
    tensors = _tensors(folder, raw) if given is None else len(given)
    check_names(raw, f"MODEL {folder}")
    check_counts(raw, tensors, f"MODEL {folder}")
    try:
        config = read_model_config(described, str(folder), code)
        tried = classes_of(config, folder, str(folder), code)
        refusal = f"{folder} is a {tried[0].__name__}, which generates no text: give a model that does."
        if (architecture := next((each for each in tried if each.can_generate()), None)) is None:
            raise CheckpointError(refusal)
        # others than these may be fetched from the Hub, and are code
        attention = config._attn_implementation if config._attn_implementation in ("eager", "sdpa") else None
        with bounded_modules(tensors, f"MODEL {folder}"):
            loaded: Any = architecture.from_pretrained(
                folder if given is None else None,
                config=config,
                state_dict=given,
                generation_config=_generation(folder, config),
                dtype="auto",
                attn_implementation=attention,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        model: Any = loaded[0]
        loading: dict[str, Any] = loaded[1]
    except HPAError:
        raise
    except Exception as error:  # whatever a broken folder makes transformers raise
        if is_out_of_memory(error) or place_of(error):
            raise
        raise CheckpointError(
            f"{folder} cannot be loaded by transformers {transformers.__version__} ({reason(error)}): "
            "check its config.json and its safetensors files."
        ) from error
    absent = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in loading[kind])
    if not tried[0].can_generate() and (absent or loading["unexpected_keys"]):
        raise CheckpointError(refusal)
    if absent:
        raise CheckpointError(
            f"{folder} is not whole: {absent[0]}{f' and {len(absent) - 1} more' if len(absent) > 1 else ''} "
            "cannot be taken from its files; fetch or merge it again."
        )
    repair(model)
    found: PreTrainedModel = model.to(device).eval()
    return found
