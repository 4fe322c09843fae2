"""Where a task file says that its rows lie, and how they are cut into splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from taskfit.errors import Faults, nearest
from taskfit.files import named_path
from taskfit.tasks.sources import FileSource, HubSource, Source
from taskfit.tasks.task import Split

if TYPE_CHECKING:
    from taskfit.tasks.task import Value

__all__ = ["DEFAULT_SHARES", "read_data", "read_shares", "read_sources"]

DEFAULT_SHARES: Mapping[Split, float] = {"validation": 0.1, "test": 0.2}
"""Share of the rows that a split gets when it has to be cut."""

_HUB_KEYS = ("hub", "config", "split", "revision")
_SPLITS: tuple[Split, ...] = get_args(Split)


def read_data(data: Value, path: Path, faults: Faults) -> tuple[dict[Split, tuple[Source, ...]], tuple[Source, ...]]:
    """Return the sources of each split, and those that are to be cut; the faults are noted.

    Args:
        data: what the key says.
        path: of the task file, beside which files lie.
        faults: takes what is wrong.
    """
    if not isinstance(data, dict) or "hub" in data:
        return {}, read_sources(data, "data", path, faults)
    sources: dict[Split, tuple[Source, ...]] = {}
    for key, value in data.items():
        if key in _SPLITS:
            sources[key] = read_sources(value, f"data.{key}", path, faults, key)
        else:
            faults.add(f"data: unknown split '{key}'{nearest(key, _SPLITS)}; splits are {', '.join(_SPLITS)}")
    if "train" not in data:
        faults.add("data: `train` is missing; without splits of your own give one source, `data: rows.jsonl`")
    return sources, ()


def read_sources(value: Value, where: str, path: Path, faults: Faults, split: str | None = None) -> tuple[Source, ...]:
    """Return the sources that a key names: files, globs, data sets of the hub, or a list of these.

    Args:
        value: what the key says.
        where: the key, for what is wrong with it.
        path: of the task file.
        faults: takes what is wrong.
        split: of a data set of the hub, where it names none.
    """
    if isinstance(value, list) and value:
        return tuple(source for item in value for source in read_sources(item, where, path, faults, split))
    if isinstance(value, str) and value.strip():
        return (FileSource(str(path.parent / named_path(value))),)
    if isinstance(value, dict) and "hub" in value:
        for key, text in value.items():
            if key not in _HUB_KEYS:
                faults.add(f"{where}: unknown key '{key}'{nearest(key, _HUB_KEYS)}")
            elif not isinstance(text, str | int) or isinstance(text, bool):
                faults.add(f"{where}.{key} must be a text (got {text!r})")
        texts = {key: str(value[key]) for key in _HUB_KEYS if value.get(key) is not None}
        return (HubSource(texts.get("hub", ""), texts.get("config"), texts.get("split", split), texts.get("revision")),)
    faults.add(f"{where} must be a file name, a glob, `hub: name`, or a list of these (got {value!r})")
    return ()


def read_shares(value: Value, sources: Mapping[Split, object], faults: Faults) -> tuple[dict[Split, float], int]:
    """Return the share of each split that may have to be cut, and the seed that cuts.

    Args:
        value: what the key ``split`` says, None for nothing.
        sources: of the splits that are given, for which nothing is cut.
        faults: takes what is wrong.
    """
    shares = dict(DEFAULT_SHARES)
    if value is None:
        return shares, 0
    if not isinstance(value, dict):
        faults.add("split must be a mapping with validation, test and seed")
        return shares, 0
    for key, share in value.items():
        if key not in ("validation", "test", "seed"):
            faults.add(f"split: unknown key '{key}'{nearest(key, ('validation', 'test', 'seed'))}")
        elif key == "seed":
            continue
        elif not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
            faults.add(f"split.{key} must be a share between 0 and 1 (got {share!r})")
        elif key in sources:
            faults.add(f"split.{key}: `data` gives this split already, nothing is cut for it")
        else:
            shares[cast("Split", key)] = float(share)
    cut = sum(share for split, share in shares.items() if split not in sources)
    if cut >= 1:
        faults.add(f"split: the shares add up to {cut:g}; nothing is left for train")
    seed = value.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool):
        faults.add(f"split.seed must be a whole number (got {seed!r})")
        return shares, 0
    return shares, seed
