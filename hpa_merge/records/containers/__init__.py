"""Files of records, in the containers that people have: a source becomes its records, one at a time.

Read in this order: :mod:`source` (where the records of a set lie), :mod:`reading` (what a file is, by its content),
then one module a container: :mod:`json_text`, :mod:`delimited` (CSV and TSV, with :mod:`cells`), :mod:`tables` (Parquet
and Arrow, with :mod:`table_service` in a child process); :mod:`packed` (gzip, and what is refused).
"""

from hpa_merge.records.containers.reading import read_records
from hpa_merge.records.containers.source import DataSource, local_source

__all__ = ["DataSource", "local_source", "read_records"]
