"""The strategy ``linear-probe``: logistic regression over the vectors of an encoder that stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from taskfit.errors import ConfigError, Faults
from taskfit.strategy.check import check_fit
from taskfit.strategy.grammar import parse
from taskfit.strategy.manifest import new_manifest
from taskfit.strategy.parameters import check_positive, check_types
from taskfit.strategy.space import OneOf, Space
from taskfit.tuning.encoder import Encoder, encoder_body
from taskfit.tuning.encoder_predictor import EncoderPredictor, pooled_vectors
from taskfit.tuning.encoder_strategy import EncoderStrategy
from taskfit.tuning.encoder_texts import encode_labelled
from taskfit.tuning.selective import HeadOnly
from taskfit.tuning.static import hard_targets
from taskfit.tuning.teacher_answers import class_targets

if TYPE_CHECKING:
    from pathlib import Path

    from taskfit.models.language_model import LanguageModel
    from taskfit.strategy.contract import Budget
    from taskfit.strategy.manifest import Manifest
    from taskfit.tasks.task import Task, Value

__all__ = ["LinearProbe"]


@dataclass(frozen=True)
class LinearProbe(EncoderStrategy):
    """Logistic regression over the pooled hidden states of an encoder whose weights stay as they are.

    Every text is read once, whatever the number of passes of the regression; ``encoder(tune=head-only)`` learns the
    same layer by gradient steps and reads each text once an epoch.

    Source: Alain and Bengio 2017; Kumar et al. 2022, section 2.
    """

    strength: float | None = None
    """Inverse strength of the regularisation; none: 1, 10 or 100 by the likelihood of the validation rows."""
    max_tokens: int = 256
    """Longer texts keep their first tokens; never more than the model's context."""
    pool: Literal["mean", "cls"] = "mean"
    """How one vector is made of a text: the mean of its hidden states, or the first of them."""

    space: ClassVar[Space] = {"strength": OneOf((0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0))}
    learns_from_teacher: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        faults = Faults("linear-probe")
        check_types(self, faults)
        if not faults.messages and self.max_tokens < 4:
            faults.add(f"max_tokens must be at least 4 (got {self.max_tokens})")
        check_positive("strength", self.strength, faults)
        faults.raise_as(ConfigError)

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> EncoderPredictor:
        """Read every text once, fit the layer on the training rows, choose its strength on the validation rows.

        Raises:
            ConfigError: no encoder is given, or the task is no classification.
        """
        import torch

        from taskfit.tuning.vector_head import choose_head

        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        encoder = replace(cast("LanguageModel", model))
        encoder.module = encoder_body(encoder)
        definition = task.definition
        sets = [encode_labelled(encoder, definition, rows, self.max_tokens) for rows in (task.train, task.validation)]
        classifier = self._like.classifier(encoder, len(definition.labels), seed=0).requires_grad_(False).eval()
        train, judged = (pooled_vectors(encoder, classifier, texts.ids) for texts in sets)
        targets = class_targets(definition, task.train, definition.labels)
        if targets is None:
            targets = hard_targets(sets[0].labels, len(definition.labels))
        head, strength = choose_head(train.values, targets, (judged.values, sets[1].labels), self.strength)
        with torch.no_grad():
            classifier.head.weight.copy_(torch.from_numpy(head.coefficients))
            classifier.head.bias.copy_(torch.from_numpy(head.intercept))
        work = train.work + judged.work + sets[0].lost
        state: dict[str, Value] = {"strength": strength}
        manifest = new_manifest(self, task, seed=seed, model=encoder, needs_base=True, state=state, fit_work=work)
        return EncoderPredictor(manifest, encoder, classifier, self.max_tokens, HeadOnly())

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> EncoderPredictor:
        """Build the saved predictor; see :class:`taskfit.strategy.contract.Strategy`."""
        return self._like.restore(model, folder, manifest)

    @property
    def _like(self) -> Encoder:
        """The encoder strategy that reads texts as this one does, and has the same head."""
        return Encoder(max_tokens=self.max_tokens, pool=self.pool, tune=parse("head-only"))
