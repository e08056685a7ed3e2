"""Data sets as people have them become samples; nothing here knows a model, a tokenizer or an option.

Read in this order: :mod:`sample` (what a record becomes), :mod:`containers` (a file, a folder or a data set -> its
records), :mod:`fields` (how every field of a record is accounted for), :mod:`layouts` (one record -> examples: a prompt
with its answers). Calibration files and test files are read by the same code.
"""

from hpa_merge.records.containers import DataSource, local_source, read_records
from hpa_merge.records.example import Example, Purpose
from hpa_merge.records.given import reading_of_sets, reading_options
from hpa_merge.records.layouts import Parsed, parse_record
from hpa_merge.records.options import ReadingOptions
from hpa_merge.records.places import PLACEHOLDER
from hpa_merge.records.sample import Media, MediaKind, Sample, Turn

__all__ = [
    "PLACEHOLDER",
    "DataSource",
    "Example",
    "Media",
    "MediaKind",
    "Parsed",
    "Purpose",
    "ReadingOptions",
    "Sample",
    "Turn",
    "local_source",
    "parse_record",
    "read_records",
    "reading_of_sets",
    "reading_options",
]
