"""Predictors that run a program over rows; saving and loading of all predictors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.errors import ConfigError, PredictorError
from taskfit.strategy.contract import Prediction
from taskfit.strategy.folder import new_folder, write_file
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import BaseModel, Manifest, read_manifest, write_manifest
from taskfit.strategy.run_program import Outcome, run_programs
from taskfit.strategy.stages import BASE_FOLDER

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.models.language_model import LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Predictor, PreparedProgram, WeightsChange
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Row

__all__ = ["WINDOW_ROWS", "ProgramPredictor", "engine_for", "example_text", "load_predictor", "windows"]

WINDOW_ROWS = 512
"""Rows answered together: enough for full batches, few enough to hold in memory whatever the number of rows."""

_EXAMPLE_FILE = "prompt.txt"


class ProgramPredictor:
    """A program, its choices made, on a model.

    Args:
        manifest: what the folder will say.
        model: the base model, or the changed one.
        prepared: the program.
        weights: the change of weights that the model went through, or None.
        example: one prompt in readable form, kept in the folder for people.
        engine: answers the requests; None: one is made for the model.
    """

    def __init__(
        self,
        manifest: Manifest,
        model: LanguageModel,
        prepared: PreparedProgram,
        weights: WeightsChange | None,
        example: str,
        engine: Engine | None = None,
    ) -> None:
        self.strategy = manifest.strategy
        self.definition = manifest.definition
        self.fit_work = manifest.fit_work
        self.manifest = manifest
        self.model = model
        self.prepared = prepared
        self.weights = weights
        self.example = example
        self.engine = engine if engine is not None else engine_for(model)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        manifest: Manifest,
        model: LanguageModel,
        prepared: PreparedProgram,
        weights: WeightsChange | None,
    ) -> ProgramPredictor:
        """Build the predictor of a folder whose parts are loaded; its example text is read if it is there."""
        path = folder / _EXAMPLE_FILE
        example = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        return cls(manifest, model, prepared, weights, example)

    @property
    def predict_work(self) -> Work:
        """Everything computed by ``predict`` so far."""
        return self.engine.work

    @property
    def notes(self) -> tuple[str, ...]:
        """What the engine found that a user should know of the answers so far, in sentences, each once."""
        return tuple(getattr(self.engine, "notes", ()))

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row, in order; :data:`WINDOW_ROWS` rows are in memory at a time."""
        for window in windows(rows, WINDOW_ROWS):
            outcomes = run_programs(self.definition, self.prepared, window, self.engine)
            for row, outcome in zip(window, outcomes, strict=True):
                yield _prediction(row, outcome)

    def save(self, folder: Path) -> None:
        """Write the predictor folder, whole or not at all.

        Raises:
            PredictorError: the folder exists, or cannot be written.
            ResourceError: the disk is full; nothing is left behind.
        """
        with new_folder(folder) as partial:
            if self.weights is not None:
                self.weights.save(self.model, partial)
            holds_all_weights = any((partial / name / "config.json").is_file() for name in ("", BASE_FOLDER))
            write_file(partial / _EXAMPLE_FILE, self.example)
            write_manifest(partial, replace(self.manifest, needs_base=not holds_all_weights))


def load_predictor(
    folder: str | Path, *, model: LanguageModel | None = None, dtype: str | None = None, device: str = "auto"
) -> Predictor:
    """Load any saved predictor; it predicts what the saved one predicted.

    Nothing in the folder is executed: it holds JSON, text and safetensors.

    Args:
        folder: the predictor folder.
        model: the base model, freshly loaded, for a caller that has it; None: the one the folder names is loaded.
        dtype: number format of the base model; None: the one it was evaluated in.
        device: where the base model goes.

    Raises:
        PredictorError: the folder is damaged, of another format, or was fitted on another model.
        ModelError: the base model cannot be loaded.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        strategy = parse(manifest.strategy_in_full)
    except ConfigError as error:
        raise PredictorError(f"{folder}: strategy: {error.message}", error.hint) from error
    if not manifest.needs_base or manifest.base is None:
        return strategy.restore(None, folder, manifest)
    if model is None and manifest.base.architecture == "service":
        from taskfit.strategy.service import check_may_ask

        check_may_ask(folder, manifest.base.name)
    base = model if model is not None else _load_base(manifest.base, dtype, device)
    _check_base(folder, manifest.base, base)
    return strategy.restore(base, folder, manifest)


def windows(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield the rows in lists of ``size``; the last one may be shorter."""
    iterator = iter(rows)
    while window := list(islice(iterator, size)):
        yield window


def example_text(definition: TaskDefinition, prepared: PreparedProgram, row: Row) -> str:
    """Return the prompt of ``row`` for people to read: its parts under headings, before any chat template."""
    prompt = prepared.prompt(definition, row)
    parts = [f"--- system ---\n{prompt.system}"] if prompt.system is not None else []
    for number, shot in enumerate(prompt.shots, start=1):
        parts.append(f"--- example {number}: question ---\n{shot.question}")
        parts.append(f"--- example {number}: answer ---\n{shot.answer}")
    parts.append(f"--- question (row {row.id}) ---\n{prompt.text}")
    return "\n".join(parts) + "\n"


def _prediction(row: Row, outcome: Outcome) -> Prediction:
    answer = outcome.answer
    return Prediction(
        row_id=row.id,
        answer=answer.answer,
        probabilities=answer.probabilities,
        tokens_in=outcome.tokens_in,
        tokens_out=outcome.tokens_out,
        cut_tokens=outcome.cut_tokens,
        is_parsed=answer.is_parsed,
        raw=answer.raw,
        choices=answer.choices,
    )


def engine_for(model: LanguageModel) -> Engine:
    """Return the engine that answers requests with this model."""
    if model.architecture == "service":
        from taskfit.strategy.service import service_engine

        return service_engine(model)
    from taskfit.inference.torch_engine import TorchEngine

    return TorchEngine(model)


def _load_base(base: BaseModel, dtype: str | None, device: str) -> LanguageModel:
    """Load the base model from the folder it lay in, or by its name where that folder is gone."""
    from taskfit.models import load

    if base.architecture == "service":
        return load(base.name)
    where = base.folder if base.folder and Path(base.folder).is_dir() else base.name
    return replace(load(where, dtype=dtype or base.dtype, device=device), name=base.name)


def _check_base(folder: Path, expected: BaseModel, model: LanguageModel) -> None:
    if model.fingerprint != expected.fingerprint:
        raise PredictorError(
            f"{folder} was fitted on {expected.name} with fingerprint {expected.fingerprint} "
            f"(got {model.name} with fingerprint {model.fingerprint})",
            "give the model it was fitted on, or fit again",
        )
