"""Fine-tune an encoder as a classifier: the small model that is hard to beat where there are labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from taskfit.errors import Faults, PredictorError
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Strategy
from taskfit.strategy.manifest import Manifest, new_manifest
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.strategy.stages import BASE_FOLDER
from taskfit.tuning.encoder_predictor import HEAD_FILE, ONNX_FILE, EncoderPredictor
from taskfit.tuning.encoder_pretraining import KeptBase, first_change, pretrained
from taskfit.tuning.encoder_strategy import EncoderStrategy
from taskfit.tuning.encoder_texts import LabelledTexts, encode_labelled, findings, pad_id_of
from taskfit.tuning.full import Full
from taskfit.tuning.method import Method, Trainable, count_values
from taskfit.tuning.model_folder import copy_tensors
from taskfit.tuning.settings import (
    Paced,
    learning_rate_for,
    training_format,
    width_of,
)
from taskfit.tuning.taught import Taught
from taskfit.tuning.teacher_answers import class_targets
from taskfit.tuning.training_set import validation_sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from taskfit.models.language_model import LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget
    from taskfit.tasks.task import Task
    from taskfit.tuning.classifier import EncoderClassifier
    from taskfit.tuning.lesson import RowSet

__all__ = ["Encoder", "encoder_body"]

LEARNING_RATE_AT_768 = 5e-5
"""For encoders of BERT-base's width and around it (Devlin et al. 2019, appendix A.3)."""

LEARNING_RATE_NARROW = 3e-4
"""For encoders narrower than 512: tried on MiniLM (384 wide), where 1e-4 learned much too slowly on 77 classes."""

HEAD_DROPOUT = 0.1
"""Devlin et al. 2019, appendix A.3."""

WEIGHT_DECAY = 0.01
"""Devlin et al. 2019, appendix A.2."""


@dataclass(frozen=True)
class Encoder(EncoderStrategy, Paced):
    """Train an encoder and a linear layer on its pooled hidden states to give the label of a text.

    The model reads the row's input alone, without instruction; texts longer than ``max_tokens`` keep their beginning.
    Prefer it to everything that generates where some hundred labels are at hand: it costs a small part per row.

    Source: Devlin et al. 2019, section 4.1; mean pooling as in Reimers and Gurevych 2019, section 3.
    """

    epochs: int = 4
    """Most passes over the training rows, the most of Devlin et al. 2019 (appendix A.3); training stops earlier when
    the validation loss no longer falls."""
    max_tokens: int = 256
    """Longer texts keep their first tokens; never more than the model's context."""
    pool: Literal["mean", "cls"] = "mean"
    """How one vector is made of a text: the mean of its hidden states, or the first of them."""
    tune: Strategy | None = None
    """How the encoder below the linear layer is tuned: any change of weights, such as ``lora(rank=4)``, ``bitfit`` or
    ``head-only``; none tunes it whole. Its learning rate counts, unless one is given here; how long, is said here."""

    pretraining: Strategy | None = None
    """``continued-pretraining(...)`` to go before; ``continued-pretraining(...)+encoder(...)`` says the same."""

    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "pool": OneOf(("mean", "cls"))}
    learns_from_teacher: ClassVar[bool] = True

    def check(self, faults: Faults) -> None:
        """Note a length that holds no text, and a ``tune`` that is no change of weights, or says how long."""
        if self.max_tokens < 4:
            faults.add(f"max_tokens must be at least 4 (got {self.max_tokens})")
        if self.pretraining is not None and first_change(self.pretraining) is None:
            faults.add(f"pretraining must be continued-pretraining(...) alone (got {self.pretraining.name})")
        if self.tune is not None and not self._is_change_alone():
            faults.add(f"tune must be a change of weights alone, such as lora(rank=4) (got {self.tune.name})")
        elif self.tune is not None:
            own = ("epochs", "batch", "min_steps", "max_steps")
            said = [name for name in own if getattr(self.method, name) != getattr(Paced, name)]
            if said:
                faults.add(f"{', '.join(said)} must be given to encoder itself, not inside tune (got {self.tune.name})")
            taught = [f.name for f in fields(Taught) if f.name not in {g.name for g in fields(Paced)}]
            unread = [name for name in taught if getattr(self.method, name) != getattr(Taught, name)]
            if unread:
                faults.add(f"{', '.join(unread)} say what a model that generates learns from; encoder reads none of it")

    def _is_change_alone(self) -> bool:
        from taskfit.strategy.composed import Composed, default_program

        tune = self.tune
        return (
            isinstance(tune, Composed)
            and isinstance(tune.weights, Method)
            and tune.weights.suits_encoders
            and tune.program == default_program()
            and tune.pretraining is None
        )

    @property
    def method(self) -> Method:
        """The change of the encoder's weights."""
        return Full() if self.tune is None else cast("Method", cast("Any", self.tune).weights)

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> EncoderPredictor:
        """Train on ``task.train``; the loss on ``task.validation`` decides when to stop.

        Raises:
            ConfigError: no encoder is given, the task is not a classification, the model is in float16, or it does not
                suit ``tune``.
            TrainingError: training has diverged.
        """
        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        self.check_task(task)
        model = replace(cast("LanguageModel", model))  # its module is replaced by the encoder's body
        with pretrained(self.pretraining, model, task, seed=seed, budget=budget) as (before, left):
            model.module = encoder_body(model)
            base = None if self.pretraining is None else KeptBase(model)
            work, classifier = self._train(model, task, seed, left)
        needs_base = self.pretraining is None and not isinstance(self.method, Full)
        manifest = new_manifest(
            self, task, seed=seed, model=model, needs_base=needs_base, state={}, fit_work=before + work
        )
        kept = None if base is None or isinstance(self.method, Full) else base
        return EncoderPredictor(manifest, model, classifier, self.max_tokens, self.method, kept)

    def check_task(self, task: Task) -> None:
        """Refuse a task without text where some is to be learned first.

        Raises:
            ConfigError, DataError: there is none.
        """
        first = first_change(self.pretraining)
        if first is not None:
            first.check_task(task)

    def other_data(self, task: Task) -> str:
        """Return a hash of what is learned besides the task's own rows; empty where there is nothing."""
        first = first_change(self.pretraining)
        return "" if first is None else first.other_data(task)

    @property
    def can_go_on(self) -> bool:
        """Whether :meth:`go_on` can train a fitted predictor further: where all weights are its own."""
        return isinstance(self.method, Full)

    def go_on(self, predictor: EncoderPredictor, task: Task, *, seed: int, budget: Budget) -> EncoderPredictor:
        """Train a fitted predictor further on other training rows, with a schedule of its own; in place.

        Raises:
            TrainingError: training has diverged.
        """
        work, classifier = self._train(predictor.model, task, seed, budget, predictor.classifier)
        manifest = replace(predictor.manifest, fit_work=predictor.fit_work + work)
        return EncoderPredictor(manifest, predictor.model, classifier, self.max_tokens, self.method)

    def preview(self, model: LanguageModel | None, task: Task, *, seed: int) -> list[str]:
        """Return lines that show what would be learned, without training.

        Raises:
            ConfigError: no encoder is given, or the task is not a classification.
        """
        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        encoder, first = cast("LanguageModel", model), first_change(self.pretraining)
        shown = [] if first is None else first.preview(encoder, task, cast("Any", None), seed=seed)
        train_set = encode_labelled(encoder, task.definition, task.train, self.max_tokens)
        held_out = encode_labelled(encoder, task.definition, validation_sample(task.validation), self.max_tokens)
        return [*shown, *findings(encoder, task.definition, train_set, held_out, self.rate(encoder), shown=3)]

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> EncoderPredictor:
        """Build the saved predictor, from its folder alone where the encoder was tuned whole.

        Raises:
            PredictorError: the folder is incomplete or damaged.
        """
        base = None
        if self.pretraining is not None and not isinstance(self.method, Full):
            model = Full().load(model, folder / BASE_FOLDER)
            base = KeptBase(folder / BASE_FOLDER)
        if model is not None and not isinstance(self.method, Full):
            model = replace(model)
            model.module = encoder_body(model)
        loaded = self.method.load(model, folder)
        if loaded.architecture != "encoder":
            raise PredictorError(f"{folder} should hold an encoder (got a model of architecture {loaded.architecture})")
        if isinstance(self.method, Full):
            loaded.module = encoder_body(loaded)
        classifier = self.classifier(loaded, len(manifest.definition.labels), seed=0)
        copy_tensors(folder / HEAD_FILE, dict(classifier.head.state_dict()))
        classifier.requires_grad_(False)
        runtime = None
        if (folder / ONNX_FILE).is_file():
            import torch

            from taskfit.inference.onnx_encoder import OnnxEncoder

            classes, threads = len(manifest.definition.labels), torch.get_num_threads()
            runtime = OnnxEncoder(folder / ONNX_FILE, classes, pad_id_of(loaded), threads)
        return EncoderPredictor(manifest, loaded, classifier.eval(), self.max_tokens, self.method, base, runtime)

    def classifier(self, model: LanguageModel, classes: int, *, seed: int) -> EncoderClassifier:
        """Return a fresh head on the model's body, on the model's device."""
        import torch

        from taskfit.tuning.classifier import EncoderClassifier

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = EncoderClassifier(model.module, width_of(model), classes, self.pool, HEAD_DROPOUT)
        return made.to(model.device)

    def rate(self, model: LanguageModel) -> float:
        """Return the peak learning rate: the parameter, or what suits an encoder of this width."""
        if self.learning_rate is None and isinstance(self.method, Full) and self.method.learning_rate is None:
            return _learning_rate(width_of(model))
        return self.learning_rate or self.method.rate(model)

    def _train(
        self,
        model: LanguageModel,
        task: Task,
        seed: int,
        budget: Budget,
        fitted: EncoderClassifier | None = None,
    ) -> tuple[Work, EncoderClassifier]:
        training_format(model)  # refuses before anything is changed
        rate = self.rate(model)
        with self.method.training(model, seed=seed) as trainable:
            if self.tune is not None:
                trained, total = count_values(model.module)
                budget.say(f"below the linear layer {trained:,} of {total:,} values train: {trainable.what}")
            classifier = fitted or self.classifier(model, len(task.definition.labels), seed=seed)
            classifier.head.requires_grad_(True)
            work = self._run(model, task, classifier, trainable, rate, seed=seed, budget=budget)
        classifier.requires_grad_(False)
        return work, classifier.eval()

    def _run(
        self,
        model: LanguageModel,
        task: Task,
        classifier: EncoderClassifier,
        trainable: Trainable,
        rate: float,
        *,
        seed: int,
        budget: Budget,
    ) -> Work:
        """Train what requires gradients."""
        from taskfit.tuning.classifier import class_loss
        from taskfit.tuning.lesson import Lesson, Pace, learn, run_parts
        from taskfit.tuning.loss import Chosen

        train_set = encode_labelled(model, task.definition, task.train, self.max_tokens)
        held_out = encode_labelled(model, task.definition, validation_sample(task.validation), self.max_tokens)
        for line in findings(model, task.definition, train_set, held_out, rate):
            budget.say(line)
        targets = class_targets(task.definition, task.train, task.definition.labels)
        pace = Pace(self, rate, self.method.trains)
        lesson = Lesson(
            module=classifier,
            rows=_row_set(model, train_set, targets),
            held_out=_row_set(model, held_out),
            loss=Chosen(class_loss, gathers=True),
            fingerprint=run_parts(model, pace, _digest(train_set, held_out, targets=targets)),
            pass_size=len(train_set.ids),
            labels=len(task.definition.labels),
            weight_decay=WEIGHT_DECAY,
        )
        return learn(model, lesson, pace, trainable, seed=seed, budget=budget) + train_set.lost


def _row_set(model: LanguageModel, texts: LabelledTexts, targets: NDArray[np.float64] | None = None) -> RowSet:
    import torch

    from taskfit.tuning.classifier import collate_texts
    from taskfit.tuning.lesson import RowSet

    def collate(rows: Sequence[int]) -> dict[str, Tensor]:
        labels = [texts.labels[row] for row in rows]
        made = collate_texts([texts.ids[row] for row in rows], pad_id_of(model), model.device, labels)
        if targets is not None:
            made["targets"] = torch.tensor(targets[list(rows)], dtype=torch.float32, device=model.device)
        return made

    return RowSet(tuple((len(ids), 0) for ids in texts.ids), collate, tuple(texts.row_ids))


def _learning_rate(width: int) -> float:
    """The rate that suits an encoder of this width."""
    return LEARNING_RATE_NARROW if width < 512 else learning_rate_for(width, at_768=LEARNING_RATE_AT_768)


def encoder_body(model: LanguageModel) -> Any:
    """Return the encoder without any head of its own, and without its pooler, which is not read."""
    body = getattr(model.module, "base_model", model.module)
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return body


def _digest(*sets: LabelledTexts, targets: NDArray[np.float64] | None) -> str:
    """Hash of the rows' tokens and labels, and of what a teacher says of them."""
    digest = hashlib.sha256()
    for rows in sets:
        digest.update(f"{rows.ids}\n{rows.labels}\n".encode())
    if targets is not None:
        digest.update(targets.tobytes())
    return digest.hexdigest()
