"""Calibration files become model inputs; nothing here knows a model, a weight or an option.

Read in this order: :mod:`formats` (one record -> samples), :mod:`samples` (a file -> the drawn samples),
:mod:`loading` (a checkpoint folder -> its tokenizer or processor), :mod:`encode` (a sample -> tensors), :mod:`seq2seq`
(the same for encoder-decoders).
"""

from hpa_merge.calibration.encode import Encoder
from hpa_merge.calibration.formats import Sample, Turn
from hpa_merge.calibration.samples import read_samples
from hpa_merge.calibration.seq2seq import PromptAndAnswer

__all__ = ["Encoder", "PromptAndAnswer", "Sample", "Turn", "read_samples"]
