"""Pairs to and from other programs, as folders and tables. What is read is judged by the library's index like any other file;
what is written is copied, and whole or not there.

    read_dataset -> Dataset -> import_dataset -> PickStore      Pairs -> export_dataset -> a folder      LiveFolder
"""

from dpo.exchange.dataset import Dataset, DatasetPair, ExchangeError, Left
from dpo.exchange.exporting import EXPORT_KINDS, export_dataset, new_export_folder
from dpo.exchange.importing import ImportReport, import_dataset
from dpo.exchange.live import LiveFolder
from dpo.exchange.manifest import read_manifest
from dpo.exchange.reading import IMPORT_KINDS, read_dataset

__all__ = [
    "EXPORT_KINDS", "IMPORT_KINDS", "Dataset", "DatasetPair", "ExchangeError", "ImportReport", "Left", "LiveFolder",
    "export_dataset", "import_dataset", "new_export_folder", "read_dataset", "read_manifest",
]  # fmt: skip
