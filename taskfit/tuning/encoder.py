"""Fine-tune an encoder as a classifier: the small model that is hard to beat where there are labels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from taskfit.errors import Faults, PredictorError
from taskfit.strategy.check import check_fit
from taskfit.strategy.contract import Strategy
from taskfit.strategy.grammar import part_name
from taskfit.strategy.manifest import Manifest, new_manifest
from taskfit.strategy.space import OneOf, Space, Times
from taskfit.tuning.encoder_predictor import HEAD_FILE, ONNX_FILE, EncoderPredictor
from taskfit.tuning.encoder_texts import LabelledTexts, encode_labelled, pad_id_of, repeated_lines
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
from taskfit.tuning.training_set import validation_sample

if TYPE_CHECKING:
    from torch import Tensor

    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget
    from taskfit.tasks.definition import TaskDefinition
    from taskfit.tasks.task import Kind, Task
    from taskfit.tuning.classifier import EncoderClassifier
    from taskfit.tuning.lesson import RowSet

__all__ = ["Encoder"]

LEARNING_RATE_AT_768 = 5e-5
"""For encoders of BERT-base's width and around it (Devlin et al. 2019, appendix A.3)."""

LEARNING_RATE_NARROW = 3e-4
"""For encoders narrower than 512: tried on MiniLM (384 wide), where 1e-4 learned much too slowly on 77 classes."""

HEAD_DROPOUT = 0.1
"""Devlin et al. 2019, appendix A.3."""

WEIGHT_DECAY = 0.01
"""Devlin et al. 2019, appendix A.2."""


@dataclass(frozen=True)
class Encoder(Paced):
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

    space: ClassVar[Space] = {"learning_rate": Times(0.25, 4.0), "pool": OneOf(("mean", "cls"))}

    def check(self, faults: Faults) -> None:
        """Note a length that holds no text, and a ``tune`` that is no change of weights, or says how long."""
        if self.max_tokens < 4:
            faults.add(f"max_tokens must be at least 4 (got {self.max_tokens})")
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

    @property
    def name(self) -> str:
        """The canonical name."""
        return part_name(self)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """Encoders."""
        return frozenset({"encoder"})

    @property
    def kinds(self) -> frozenset[Kind]:
        """Classification."""
        return frozenset({"classification"})

    def fit(self, model: LanguageModel | None, task: Task, *, seed: int, budget: Budget) -> EncoderPredictor:
        """Train on ``task.train``; the loss on ``task.validation`` decides when to stop.

        Raises:
            ConfigError: no encoder is given, the task is not a classification, the model is in float16, or it does not
                suit ``tune``.
            TrainingError: training has diverged.
        """
        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        model = replace(cast("LanguageModel", model))  # its module is replaced by the encoder's body
        model.module = _body(model)
        work, classifier = self._train(model, task, seed, budget)
        needs_base = not isinstance(self.method, Full)
        manifest = new_manifest(self, task, seed=seed, model=model, needs_base=needs_base, state={}, fit_work=work)
        return EncoderPredictor(manifest, model, classifier, self.max_tokens, self.method)

    def preview(self, model: LanguageModel | None, task: Task, *, seed: int) -> list[str]:
        """Return lines that show what would be learned, without training.

        Raises:
            ConfigError: no encoder is given, or the task is not a classification.
        """
        check_fit(self, task.definition.kind, None if model is None else model.architecture)
        encoder = cast("LanguageModel", model)
        train_set = encode_labelled(encoder, task.definition, task.train, self.max_tokens)
        held_out = encode_labelled(encoder, task.definition, validation_sample(task.validation), self.max_tokens)
        return list(_findings(encoder, task.definition, train_set, held_out, self.rate(encoder), shown=3))

    def restore(self, model: LanguageModel | None, folder: Path, manifest: Manifest) -> EncoderPredictor:
        """Build the saved predictor, from its folder alone where the encoder was tuned whole.

        Raises:
            PredictorError: the folder is incomplete or damaged.
        """
        if model is not None and not isinstance(self.method, Full):
            model = replace(model)
            model.module = _body(model)
        loaded = self.method.load(model, folder)
        if loaded.architecture != "encoder":
            raise PredictorError(f"{folder} should hold an encoder (got a model of architecture {loaded.architecture})")
        if isinstance(self.method, Full):
            loaded.module = _body(loaded)
        classifier = self._classifier(loaded, len(manifest.definition.labels), seed=0)
        copy_tensors(folder / HEAD_FILE, dict(classifier.head.state_dict()))
        classifier.requires_grad_(False)
        runtime = None
        if (folder / ONNX_FILE).is_file():
            import torch

            from taskfit.inference.onnx_encoder import OnnxEncoder

            classes, threads = len(manifest.definition.labels), torch.get_num_threads()
            runtime = OnnxEncoder(folder / ONNX_FILE, classes, pad_id_of(loaded), threads)
        return EncoderPredictor(manifest, loaded, classifier.eval(), self.max_tokens, self.method, runtime)

    def _classifier(self, model: LanguageModel, classes: int, *, seed: int) -> EncoderClassifier:
        """A fresh head on the model's body, on the model's device."""
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

    def _train(self, model: LanguageModel, task: Task, seed: int, budget: Budget) -> tuple[Work, EncoderClassifier]:
        training_format(model)  # refuses before anything is changed
        rate = self.rate(model)
        with self.method.training(model, seed=seed) as trainable:
            if self.tune is not None:
                trained, total = count_values(model.module)
                budget.say(f"below the linear layer {trained:,} of {total:,} values train: {trainable.what}")
            classifier = self._classifier(model, len(task.definition.labels), seed=seed)
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
        for line in _findings(model, task.definition, train_set, held_out, rate):
            budget.say(line)
        pace = Pace(self, rate, self.method.trains)
        lesson = Lesson(
            module=classifier,
            rows=_row_set(model, train_set),
            held_out=_row_set(model, held_out),
            loss=Chosen(class_loss, gathers=True),
            fingerprint=run_parts(model, pace, _digest(train_set, held_out)),
            pass_size=len(train_set.ids),
            labels=len(task.definition.labels),
            weight_decay=WEIGHT_DECAY,
        )
        return learn(model, lesson, pace, trainable, seed=seed, budget=budget) + train_set.lost


def _row_set(model: LanguageModel, texts: LabelledTexts) -> RowSet:
    from taskfit.tuning.classifier import collate_texts
    from taskfit.tuning.lesson import RowSet

    def collate(rows: Sequence[int]) -> dict[str, Tensor]:
        labels = [texts.labels[row] for row in rows]
        return collate_texts([texts.ids[row] for row in rows], pad_id_of(model), model.device, labels)

    return RowSet(tuple((len(ids), 0) for ids in texts.ids), collate, tuple(texts.row_ids))


def _findings(
    model: LanguageModel,
    definition: TaskDefinition,
    train_set: LabelledTexts,
    held_out: LabelledTexts,
    rate: float,
    *,
    shown: int = 1,
) -> Iterator[str]:
    """What the user must see before training starts."""
    rows = len(train_set.ids)
    tokens = sum(len(ids) for ids in train_set.ids)
    yield (
        f"training the encoder on {rows} rows of {len(definition.labels)} labels, {tokens / rows:.0f} tokens each on "
        f"average, learning rate {rate:.2g}; the first one reads"
    )
    for ids, index in zip(train_set.ids[:shown], train_set.labels, strict=False):
        yield f"  {model.tokenizer.decode(ids)} ⟦{definition.labels[index]}⟧"
    yield from repeated_lines(train_set)
    count = Counter(train_set.labels)
    absent = [label for index, label in enumerate(definition.labels) if index not in count]
    if absent:
        yield f"warning: {len(absent)} labels have no training row and can hardly be predicted, first {absent[0]}"
    cut_rows = sum(cut > 0 for cut in train_set.cut)
    if cut_rows:
        yield f"warning: {cut_rows} of {rows} texts are too long and lost {sum(train_set.cut)} tokens at their end"
    if not held_out.ids:
        yield "no validation rows: training runs to its last step without early stopping"


def _learning_rate(width: int) -> float:
    """The rate that suits an encoder of this width."""
    return LEARNING_RATE_NARROW if width < 512 else learning_rate_for(width, at_768=LEARNING_RATE_AT_768)


def _body(model: LanguageModel) -> Any:
    """The encoder without any head of its own, and without its pooler, which is not read."""
    body = getattr(model.module, "base_model", model.module)
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return body


def _digest(*sets: LabelledTexts) -> str:
    """Hash of the rows' tokens and labels."""
    digest = hashlib.sha256()
    for rows in sets:
        digest.update(f"{rows.ids}\n{rows.labels}\n".encode())
    return digest.hexdigest()
