"""What a search has tried, in a file: a search that is killed and started again repeats no finished try."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from taskfit.errors import StudyError
from taskfit.files import write_text
from taskfit.models.work import Work
from taskfit.strategy.parameters import type_fits

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.tasks.task import Value

__all__ = ["Ledger", "Try"]

FILE = "search.json"
_FORMAT = 1


@dataclass(frozen=True)
class Try:
    """One point of the space, trained for so many steps.

    Attributes:
        point: its number; 0 is the strategy as it is.
        values: the parameters that differ from it.
        steps: None: the strategy has none.
        score: the deciding metric on validation; None where the try failed.
        likelihood: mean log-probability of the right answers, nats; it decides between equal scores.
        wall_s: seconds of fitting and validating.
        work: what they computed.
        failed: why it failed; empty where it did not.
    """

    point: int
    values: Mapping[str, Value]
    steps: int | None
    score: float | None
    likelihood: float
    wall_s: float
    work: Work
    failed: str = ""


class Ledger:
    """The finished tries of one search.

    Args:
        folder: where the file lies, or will lie.
        identity: what the search is; a file of another one is refused.

    Raises:
        StudyError: the file is damaged, or belongs to another search.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Value]) -> None:
        self._path = folder / FILE
        self._identity = dict(identity)
        self.tries: list[Try] = self._read() if self._path.is_file() else []

    def find(self, point: int, steps: int | None) -> Try | None:
        """Return the finished try of this point with these steps, if there is one."""
        return next((one for one in self.tries if (one.point, one.steps) == (point, steps)), None)

    def add(self, tried: Try) -> None:
        """Keep a finished try, on the disk too."""
        self.tries.append(tried)
        record = {"format": _FORMAT, "search": self._identity, "tries": [asdict(one) for one in self.tries]}
        write_text(self._path, json.dumps(record, ensure_ascii=False, indent=2) + "\n")

    @property
    def work(self) -> Work:
        """What all tries together computed."""
        return sum((one.work for one in self.tries), Work())

    def _read(self) -> list[Try]:
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(record, dict) or record.get("format") != _FORMAT or not isinstance(record.get("tries"), list):
            raise self._damaged(f"expected a list of tries in format {_FORMAT}")
        found = record.get("search")
        differing = [
            f"{name} is {value!r}, there {found.get(name)!r}"
            for name, value in self._identity.items()
            if isinstance(found, dict) and found.get(name) != value
        ]
        if not isinstance(found, dict) or differing:
            raise StudyError(
                f"{self._path} belongs to another search: {'; '.join(differing) or 'it does not say which'}",
                "start in another folder, or remove this one to search anew",
            )
        return [self._try(values) for values in record["tries"]]

    def _try(self, values: object) -> Try:
        hints: Sequence[tuple[str, object]] = (
            ("point", int),
            ("steps", int | None),
            ("score", float | None),
            ("likelihood", float),
            ("wall_s", float),
            ("failed", str),
            ("values", dict),
            ("work", dict),
        )
        if not isinstance(values, dict) or not all(type_fits(values.get(name), hint) for name, hint in hints):
            raise self._damaged(f"a try must have {', '.join(name for name, _ in hints)} (got {values!r:.200})")
        known = {field.name for field in fields(Work)}
        work = values["work"]
        if not all(name in known and type_fits(count, int) for name, count in work.items()):
            raise self._damaged(f"a try's work must be whole numbers of {', '.join(sorted(known))} (got {work!r:.200})")
        return Try(**{name: values[name] for name, _ in hints} | {"work": Work(**work)})

    def _damaged(self, why: str) -> StudyError:
        return StudyError(f"cannot read {self._path}: {why}", "remove the file to search anew")
