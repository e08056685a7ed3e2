"""Data sets as people have them become samples; nothing here knows a model, a tokenizer or an option.

Read in this order: :mod:`sample` (what a record becomes), :mod:`reading` (a file -> its records), :mod:`formats` (one
record -> samples). Calibration files and test files are read by the same code.
"""

from hpa_merge.records.formats import parse_record
from hpa_merge.records.options import ReadingOptions
from hpa_merge.records.reading import read_records
from hpa_merge.records.sample import Media, MediaKind, Sample, Turn

__all__ = ["Media", "MediaKind", "ReadingOptions", "Sample", "Turn", "parse_record", "read_records"]
