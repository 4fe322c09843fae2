"""The strategy ``static``: vectors of tokens taken from an encoder once, and a linear layer over their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from taskfit.errors import ConfigError, Faults
from taskfit.strategy.check import check_fit
from taskfit.strategy.manifest import new_manifest
from taskfit.strategy.parameters import check_positive, check_types
from taskfit.strategy.space import OneOf, Space
from taskfit.tuning.baselines import BaselinePredictor, named_shares
from taskfit.tuning.encoder_strategy import EncoderStrategy
from taskfit.tuning.teacher_answers import class_targets

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row, Task, Value
    from taskfit.tuning.static_table import StaticTable
    from taskfit.tuning.vector_head import VectorHead

__all__ = ["Static", "hard_targets", "label_numbers"]


@dataclass(frozen=True)
class Static(EncoderStrategy):
    """Logistic regression over the mean of static token vectors, which an encoder gives once.

    It predicts as fast as TF-IDF and knows what words mean from the encoder's pre-training; it knows no order of words.
    The folder holds the vectors: the encoder is not needed to predict.

    Source: Tulkens and van Dongen 2024 (model2vec).
    """

    dimensions: int = 256
    """Principal components of the vectors that are kept."""
    strength: float | None = None
    """Inverse strength of the regularisation; none: 1, 10 or 100 by the likelihood of the validation rows."""

    space: ClassVar[Space] = {"strength": OneOf((0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0))}
    learns_from_teacher: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        faults = Faults("static")
        check_types(self, faults)
        if not faults.messages and self.dimensions < 2:
            faults.add(f"dimensions must be at least 2 (got {self.dimensions})")
        check_positive("strength", self.strength, faults)
        faults.raise_as(ConfigError)

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> BaselinePredictor:
        """Take the vectors from the encoder, fit the head on the training rows, choose its strength on validation.

        Raises:
            ConfigError: no encoder is given, its tokenizer is no fast one, or the task is no classification.
        """
        from taskfit.tuning.static_table import distil_table

        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        encoder = cast("LanguageModel", model)
        table, work = distil_table(encoder, self.dimensions)
        budget.say(f"static: {len(table.vectors):,} tokens of {encoder.name} in {table.width} dimensions")
        head, strength = _fitted(table, task, self.strength)
        state: dict[str, Value] = {"strength": strength, "width": table.width}
        manifest = new_manifest(self, task, seed=seed, model=encoder, needs_base=False, state=state, fit_work=work)
        return _predictor(manifest, table, head)

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> BaselinePredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        from taskfit.tuning.static_table import load_table
        from taskfit.tuning.vector_head import load_head

        table = load_table(folder)
        return _predictor(manifest, table, load_head(folder, len(manifest.definition.labels), table.width))


def label_numbers(definition: TaskDefinition, rows: Sequence[Row]) -> list[int]:
    """Return the place of each row's label among the task's labels."""
    place = {label: number for number, label in enumerate(definition.labels)}
    return [place[definition.gold(row)[0]] for row in rows]


def hard_targets(numbers: Sequence[int], classes: int) -> NDArray[np.float64]:
    """Return class numbers as targets: 1 at each row's class; shape (rows, classes)."""
    import numpy as np

    return np.eye(classes)[list(numbers)]


def _fitted(table: StaticTable, task: Task, strength: float | None) -> tuple[VectorHead, float]:
    from taskfit.tuning.vector_head import choose_head

    definition = task.definition
    targets = class_targets(definition, task.train, definition.labels)
    if targets is None:
        targets = hard_targets(label_numbers(definition, task.train), len(definition.labels))
    texts = ([definition.input_text(row) for row in rows] for rows in (task.train, task.validation))
    train, judged = map(table.embed, texts)
    return choose_head(train, targets, (judged, label_numbers(definition, task.validation)), strength)


def _predictor(manifest: Manifest, table: StaticTable, head: VectorHead) -> BaselinePredictor:
    from taskfit.tuning.static_table import save_table
    from taskfit.tuning.vector_head import save_head

    definition = manifest.definition

    def guess(rows: Sequence[Row]) -> list[tuple[str, dict[str, float] | None]]:
        shares = head.probabilities(table.embed([definition.input_text(row) for row in rows]))
        return [named_shares(definition, definition.labels, values) for values in shares.tolist()]

    def save_files(folder: Path) -> None:
        save_table(table, folder)
        save_head(head, folder)

    return BaselinePredictor(manifest, guess, save_files)
