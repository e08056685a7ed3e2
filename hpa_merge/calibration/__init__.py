"""Samples become model inputs; nothing here knows a model, a weight or an option.

Read in this order: :mod:`loading` (a checkpoint folder -> its tokenizer
or processor), :mod:`templates` (which chat template), :mod:`messages` (a sample -> what the template takes, and what it
leaves out), :mod:`writing` (a sample -> one text), :mod:`truncation` (a conversation that is too long), :mod:`feeding`
(texts and media -> tensors), :mod:`encode` (all of that), :mod:`seq2seq` (the same for encoder-decoders),
:mod:`original_llava` (the same for folders that no processor of transformers knows), :mod:`showing` (a sample as people
see it), :mod:`process` (an encoder in a child process, which is where a stranger's is run), :mod:`service` (its
inside).
"""

from hpa_merge.libraries import torchvision  # noqa: F401 - before transformers

# isort: split
from hpa_merge.calibration.encode import Encoded, Encoder
from hpa_merge.calibration.original_llava import original_llava_encoder
from hpa_merge.calibration.process import ENCODER, EncoderProcess
from hpa_merge.calibration.seq2seq import PromptAndAnswer
from hpa_merge.calibration.showing import Piece
from hpa_merge.calibration.templates import TemplateOptions
from hpa_merge.records.sampling import SampleSet, read_samples

__all__ = [
    "ENCODER",
    "Encoded",
    "Encoder",
    "EncoderProcess",
    "Piece",
    "PromptAndAnswer",
    "SampleSet",
    "TemplateOptions",
    "original_llava_encoder",
    "read_samples",
]
