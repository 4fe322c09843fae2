"""Go on with a model's pre-training, on text of a domain or on the task's own, before it is tuned or asked."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from taskfit.errors import DataError
from taskfit.strategy.contract import Strategy
from taskfit.tasks.text import documents_of, task_documents
from taskfit.tuning.full import Full
from taskfit.tuning.method import Method, count_values
from taskfit.tuning.packing import unpacked
from taskfit.tuning.peft_method import PeftMethod
from taskfit.tuning.qlora import QLora
from taskfit.tuning.settings import Paced, refuse_quantised, training_format
from taskfit.tuning.text_sets import TextSet, text_set

if TYPE_CHECKING:
    from taskfit.errors import Faults
    from taskfit.models.language_model import Architecture, LanguageModel
    from taskfit.models.work import Work
    from taskfit.strategy.contract import Budget, PreparedProgram
    from taskfit.tasks.task import Task
    from taskfit.tasks.text import Document
    from taskfit.tuning.loss import Chosen

__all__ = ["ContinuedPretraining"]

TOLERANCE = 1e-4
"""Largest relative difference in loss between packed and single texts that counts as rounding, in float32."""

TOLERANCE_BFLOAT16 = 1e-2
"""The same for weights in bfloat16."""


@dataclass(frozen=True)
class ContinuedPretraining(Paced):
    """Learn plain text as in pre-training, then tune or ask: ``continued-pretraining(text=reports/*.txt)+lora``.

    Without ``text``, the task's own: the inputs of its training rows and of its ``unlabelled`` rows. Decoders continue
    text, packed into full sequences of which none sees another; encoders tell masked tokens, and encoder–decoders
    spans that were taken out, 15 % of the tokens, others in every pass. Prefer it where the model's words are not the
    domain's and much text is at hand; it costs as much as all that text is long.

    Source: Gururangan et al. 2020, sections 3 (domain text) and 4 (the task's own); Devlin et al. 2019, section 3.1,
    for masked tokens; Raffel et al. 2020, section 3.1.4, for spans.
    """

    text: str = ""
    """File or glob of texts, relative to the task file; empty: the task's own text. ``.txt``, ``.md`` and ``.rst`` are
    one document each, of other files (``.jsonl``, ``.csv``, ``.parquet``) every row is one."""
    field: str = "text"
    """The field of such rows that holds the text."""
    length: int = 1024
    """Most tokens of a sequence; never more than the model's context."""
    tune: Strategy | None = None
    """Which weights change: ``lora(rank=64)`` or another method whose changes can be merged, as they are afterwards;
    none changes all. Its learning rate counts, unless one is given here; how long, is said here."""

    def check(self, faults: Faults) -> None:
        """Note a length that holds no text, and a ``tune`` that cannot be merged, or says how long."""
        if self.length < 8:
            faults.add(f"length must be at least 8 (got {self.length})")
        if self.tune is None:
            return
        if not self._can_merge():
            faults.add(f"tune must be full or a method that can be merged, such as lora (got {self.tune.name})")
        elif self.method != type(self.method)(**self._own_parameters()):
            faults.add(f"how long and on what is said to continued-pretraining, not inside tune (got {self.tune.name})")

    @property
    def method(self) -> Method:
        """The change of weights."""
        return Full() if self.tune is None else cast("Method", cast("Any", self.tune).weights)

    @property
    def architectures(self) -> frozenset[Architecture]:
        """All whose weights are at hand; each learns text as it was pre-trained on it."""
        return frozenset({"decoder", "encoder", "encoder-decoder"})

    def check_task(self, task: Task) -> None:
        """Refuse a task without text to learn.

        Raises:
            DataError: the files are not there, or hold no text.
        """
        self._documents(task)

    def other_data(self, task: Task) -> str:
        """Return a hash of the text, for it is no part of the task's own rows."""
        digest = hashlib.sha256()
        for document in self._documents(task):
            digest.update(document.digest.encode())
        return digest.hexdigest()

    def text_length(self, task: Task) -> int:
        """Return the characters of all text that one pass learns."""
        return sum(len(document.text) for document in self._documents(task))

    def change(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int, budget: Budget) -> Work:
        """Train the model on text, in place; the program is not asked. Perplexities are said before and after.

        Raises:
            TrainingError: there is too little text, or training has diverged.
            ConfigError: a parameter does not suit the model, or it is in float16 or quantised.
        """
        from taskfit.tuning.answers import Pace, choose, mean_loss, train_examples

        training_format(model)  # refuses before anything is changed, as does the next
        refuse_quantised(model.module)  # its updates could not be merged
        texts = self.text_set(model, task, seed=seed)
        rate = self.learning_rate or self.method.rate(model)
        with self.method.training(model, seed=seed) as trainable:
            trained, total = count_values(model.module)
            budget.say(f"continued-pretraining trains {trained:,} of {total:,} values; learning rate {rate:.2g}")
            chosen = choose(model, texts.data.examples)
            texts = _as_it_packs(model, texts, chosen, budget)
            before = mean_loss(model, texts.judged, chosen)  # what is fresh has changed nothing yet
            pace = Pace(self, rate, self.method.trains)
            work = train_examples(model, texts.data, pace, trainable, seed=seed, budget=budget, chosen=chosen)
        model.module = self.method.merge(model).module
        after = mean_loss(model, texts.judged, chosen)
        tokens = sum(example.learned for example in texts.judged)
        budget.say(
            f"{texts.measure} ({tokens:,} tokens): {math.exp(before):.2f} before, {math.exp(after):.2f} "
            "after continued pre-training"
        )
        return work

    def preview(self, model: LanguageModel, task: Task, program: PreparedProgram, *, seed: int) -> list[str]:
        """Return lines that show what would be learned.

        Raises:
            TrainingError: there is too little text. ConfigError: the model cannot go on with its pre-training.
        """
        from taskfit.tuning.preview import shown_lines

        return shown_lines(model, self.text_set(model, task, seed=seed).data, self.batch, seed=seed)

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write a complete model folder."""
        Full().save(model, folder)

    def load(self, model: LanguageModel | None, folder: Path) -> LanguageModel:
        """Load the folder's model.

        Raises:
            PredictorError: the folder holds no complete model.
        """
        return Full().load(model, folder)

    def text_set(self, model: LanguageModel, task: Task, *, seed: int) -> TextSet:
        """Return the text as the model learns it, and what of it is held out.

        Raises:
            TrainingError: there is too little of it.
            ConfigError: the model cannot go on with its pre-training.
        """
        return text_set(
            model,
            sorted(self._documents(task), key=lambda document: document.digest),
            min(self.length, model.context),
            steps=lambda sequences: self.steps(sequences, 0),
            batch=self.batch,
            seed=seed,
            where=f"the files {self.text}" if self.text else "the task's own rows",
        )

    def _documents(self, task: Task) -> list[Document]:
        if self.text:
            return documents_of(self.text, task.path, self.field)
        found = task_documents(task)
        if not found:
            raise DataError("the task's training rows hold no text", "Name text files with text=.")
        return found

    def _can_merge(self) -> bool:
        from taskfit.strategy.composed import Composed, default_program

        tune = self.tune
        if not isinstance(tune, Composed) or tune.pretraining is not None or tune.program != default_program():
            return False
        return isinstance(tune.weights, Full) or (
            isinstance(tune.weights, PeftMethod) and not isinstance(tune.weights, QLora)
        )

    def _own_parameters(self) -> dict[str, Any]:
        """The method's parameters without those that say how long and on what: they are set here."""
        from dataclasses import fields

        from taskfit.tuning.taught import Taught

        shared = {entry.name for entry in fields(Taught)} - {"learning_rate"}
        return {
            entry.name: getattr(self.method, entry.name) for entry in fields(self.method) if entry.name not in shared
        }


def _as_it_packs(model: LanguageModel, texts: TextSet, chosen: Chosen, budget: Budget) -> TextSet:
    """The texts as they are where the model keeps packed ones apart, else with each text by itself."""
    from taskfit.tuning.answers import mean_loss

    data = texts.data
    several = [example for example in data.examples if len(example.documents) > 1]
    if not several:
        return texts
    tried = min(several, key=lambda example: example.length)
    together = mean_loss(model, [tried], chosen)
    apart = mean_loss(model, unpacked(tried), chosen)
    tolerance = TOLERANCE if training_format(model) is None else TOLERANCE_BFLOAT16
    if abs(together - apart) <= tolerance * apart:
        return texts
    budget.say(
        f"this model does not keep packed texts apart (loss {together:.4f} together, {apart:.4f} apart), so each text "
        "is a sequence of its own (slower)"
    )
    examples = tuple(one for example in data.examples for one in unpacked(example))
    held_out = tuple(one for example in data.held_out for one in unpacked(example))
    data = replace(data, examples=examples, held_out=held_out, pass_size=len(examples))
    return replace(texts, data=data, judged=held_out)
