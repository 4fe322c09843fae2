"""Where rows come from: files, globs, or a data set of the Hugging Face hub."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from taskfit.errors import DataError, MissingExtraError
from taskfit.files import named_path
from taskfit.tasks.reading import RawRow, plain_value, read_file

if TYPE_CHECKING:
    from types import ModuleType

    from taskfit.tasks.task import Split, Value

__all__ = ["HUB_SPLITS", "FileSource", "HubSource", "Source", "hub_split_names", "read_source", "source_files"]

HUB_SPLITS: Mapping[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}
"""What data sets call their splits, and what they are here."""


@dataclass(frozen=True)
class FileSource:
    """A file or a glob (``parts/*.jsonl``, ``**``), in order of name."""

    pattern: str


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hugging Face hub, or a local folder that ``datasets.load_dataset`` reads.

    Attributes:
        name: such as ``owner/name``.
        config: the configuration, where the data set has several.
        split: such as ``train`` or ``train[:10%]``.
        revision: branch, tag or commit; give a commit to make the task reproducible.
    """

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None


Source = FileSource | HubSource


def read_source(source: Source) -> Iterator[RawRow]:
    """Yield the rows of ``source``, in order.

    Raises:
        DataError: a file is missing or broken, or the data set cannot be loaded.
        MissingExtraError: a hub source without the package ``datasets``.
    """
    if isinstance(source, HubSource):
        yield from _read_hub(source)
        return
    for path in source_files(source):
        yield from read_file(path)


def source_files(source: FileSource) -> tuple[Path, ...]:
    """Return the files that the pattern names, sorted.

    Raises:
        DataError: there is none.
    """
    path = named_path(source.pattern)
    if path.is_file():
        return (path,)
    if path.is_dir():
        raise DataError(f"{path}: a folder; name its files, such as {path / '*.jsonl'}")
    if not glob.has_magic(source.pattern):
        return (path,)  # reading says that it is missing
    names = glob.glob(str(path), recursive=True)  # noqa: PTH207  Path.glob takes no absolute pattern
    found = tuple(sorted(Path(name) for name in names if Path(name).is_file()))
    if not found:
        raise DataError(f"{source.pattern}: no file has a name like this")
    return found


def hub_split_names(source: HubSource) -> Mapping[Split, str]:
    """Return which of our splits the data set has, and its names for them.

    Raises:
        DataError: the data set cannot be loaded. MissingExtraError: ``datasets`` is not installed.
    """
    try:
        names = _datasets().get_dataset_split_names(source.name, source.config, revision=source.revision)
    except Exception as error:  # any error of the network, the hub or the data set's files
        raise _hub_fault(source, error) from error
    return {HUB_SPLITS[name]: name for name in reversed(list(names)) if name in HUB_SPLITS}


def _read_hub(source: HubSource) -> Iterator[RawRow]:
    split = source.split or "train"
    try:
        data = _datasets().load_dataset(source.name, source.config, split=split, revision=source.revision)
    except MissingExtraError:
        raise
    except Exception as error:  # any error of the network, the hub or the data set's files
        raise _hub_fault(source, error) from error
    for number, fields in enumerate(data, start=1):
        place = f"{source.name}/{split}[{number}]"
        yield RawRow(cast("dict[str, Value]", plain_value(dict(fields), place)), place)


def _datasets() -> ModuleType:
    try:
        import datasets
    except ImportError:
        command = "pip install 'taskfit[hub]'"
        raise MissingExtraError(
            f"data from the hub need the package datasets, which is not installed. Run: {command}"
        ) from None
    return cast("ModuleType", datasets)


def _hub_fault(source: HubSource, error: Exception) -> Exception:
    if isinstance(error, MissingExtraError):
        return error
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return DataError(f"data set {source.name}: cannot be loaded: {reason}")
