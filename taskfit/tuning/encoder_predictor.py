"""A fitted encoder: predicts classes of texts, saves itself as an ordinary encoder folder with a head beside it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from taskfit.errors import ConfigError
from taskfit.models.work import Work, take_hidden_work
from taskfit.strategy.contract import Prediction
from taskfit.strategy.folder import new_folder
from taskfit.strategy.manifest import Manifest, write_manifest
from taskfit.strategy.predictor import windows
from taskfit.tuning.batches import split_by_length
from taskfit.tuning.encoder_texts import encode_rows, pad_id_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Module

    from taskfit.models.language_model import LanguageModel
    from taskfit.tasks.task import Row
    from taskfit.tuning.classifier import EncoderClassifier, TextBatch
    from taskfit.tuning.encoder_pretraining import KeptBase
    from taskfit.tuning.method import Method

__all__ = ["HEAD_FILE", "ONNX_FILE", "EncoderPredictor", "Runtime", "pooled_vectors"]

HEAD_FILE = "head.safetensors"

ONNX_FILE = "model.onnx"
"""An exported predictor has it: what computes in place of the encoder."""

WINDOW_ROWS = 2048
"""Rows predicted together, sorted by length."""


class Runtime(Protocol):
    """What computes logits in place of the module; several threads may use it at once."""

    def logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of the classes, float32, shape (texts, classes), in the order of the texts."""
        ...


class EncoderPredictor:
    """A fine-tuned encoder with its head.

    Args:
        manifest: what the folder will say.
        model: the encoder's body with its tokenizer.
        classifier: the same body with the head.
        max_tokens: longer texts keep their beginning.
        method: how the body was tuned; it knows what of it must be saved.
        base: the encoder that the method's changes were put on, where it was made in the same fit.
        runtime: what computes in place of the classifier; None: what is found to be fastest and the same.
    """

    def __init__(
        self,
        manifest: Manifest,
        model: LanguageModel,
        classifier: EncoderClassifier,
        max_tokens: int,
        method: Method,
        base: KeptBase | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.strategy = manifest.strategy
        self.definition = manifest.definition
        self.fit_work = manifest.fit_work
        self.manifest = manifest
        self.model = model
        self.classifier = classifier
        self.max_tokens = max_tokens
        self.method = method
        self.base = base
        self._predict_work = Work()
        self._counting = Lock()
        self._runtime = runtime
        self._is_tried = runtime is not None

    @property
    def predict_work(self) -> Work:
        """Everything computed by ``predict`` so far."""
        return self._predict_work

    def predict(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        """Yield one prediction a row, in order; ``WINDOW_ROWS`` rows are in memory at a time, sorted by length."""
        labels = self.definition.labels
        for window in windows(rows, WINDOW_ROWS):
            texts = encode_rows(self.model, self.definition, window, self.max_tokens)
            shares = self._probabilities(texts.ids)
            with self._counting:
                self._predict_work += texts.lost
            for row, ids, cut, values in zip(window, texts.ids, texts.cut, shares, strict=True):
                probabilities = dict(zip(labels, values, strict=True))
                yield Prediction(
                    row_id=row.id,
                    answer=max(labels, key=probabilities.__getitem__),
                    probabilities=probabilities,
                    tokens_in=len(ids),
                    cut_tokens=cut,
                )

    @property
    def is_thread_safe(self) -> bool:
        """Whether two threads may predict at once: where rows do not go through the module, and its counts, itself."""
        return self._runtime is not None

    def save(self, folder: Path) -> None:
        """Write the predictor folder, whole or not at all: the tuned body, or what was changed of it, and the head.

        Raises:
            PredictorError: the folder exists, or cannot be written.
            ResourceError: the disk is full; nothing is left behind.
        """
        from safetensors.torch import save_file

        head = {name: value.cpu().contiguous() for name, value in self.classifier.head.state_dict().items()}
        with new_folder(folder) as partial:
            self.method.save(self.model, partial)
            if self.base is not None:
                self.base.save(partial)
            save_file(head, partial / HEAD_FILE)
            write_manifest(partial, self.manifest)

    def folded_classifier(self) -> EncoderClassifier:
        """Return a copy in float32, which rounds no update away, with the method's changes folded into the weights.

        What cannot be folded stays beside them.
        """
        own = deepcopy(self.classifier).float()
        with suppress(ConfigError):  # between the matrices of a bottleneck adapter stands a function
            own.encoder = self.method.merge(replace(self.model, module=own.encoder)).module
        return own

    def _probabilities(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        """Probabilities of all classes for each text, in the order of the texts; each sums to 1."""
        from taskfit.tuning.encoder_packed import try_packed

        if not self._is_tried:
            self._runtime = try_packed(self.classifier, texts, pad_id_of(self.model), self._folded_body)
            self._is_tried = True
        take_hidden_work(self.classifier)  # what was tried is no work of predicting
        logits = self._plain_logits(texts) if self._runtime is None else self._runtime.logits(texts)
        with self._counting:
            self._predict_work += _work(self.classifier, texts)
        found: list[list[float]] = logits.double().softmax(-1).tolist()
        return found

    def _folded_body(self) -> Module:
        return self.folded_classifier().encoder

    def _plain_logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Logits through the model itself, padded, float32, shape (texts, classes)."""
        import torch

        found = torch.empty(len(texts), len(self.definition.labels))
        for group, batch in _batches(self.model, texts):
            found[group] = self.classifier(batch["input_ids"], batch["attention_mask"]).float().cpu()
        return found


@dataclass(frozen=True)
class Pooled:
    """Vectors of texts, shape (texts, width), float32, and what was computed for them."""

    values: NDArray[np.float32]
    work: Work


def pooled_vectors(model: LanguageModel, classifier: EncoderClassifier, texts: Sequence[Sequence[int]]) -> Pooled:
    """Return what the classifier's head would see of each text, in the order of the texts."""
    import numpy as np

    found = np.zeros((len(texts), classifier.head.in_features), dtype=np.float32)
    for group, batch in _batches(model, texts):
        found[group] = classifier.pooled(batch["input_ids"], batch["attention_mask"]).float().cpu().numpy()
    return Pooled(found, _work(classifier, texts))


def _batches(model: LanguageModel, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], TextBatch]]:
    """Yield the places and the padded tokens of texts of like length; nothing computed meanwhile keeps a gradient."""
    import torch

    from taskfit.tuning.classifier import collate_texts

    with torch.inference_mode():
        for group in _groups(texts):
            yield group, collate_texts([texts[index] for index in group], pad_id_of(model), model.device)


def _groups(texts: Sequence[Sequence[int]]) -> list[list[int]]:
    from taskfit.tuning.memory_plan import TOKEN_BUDGET

    return split_by_length([len(ids) for ids in texts], TOKEN_BUDGET) if texts else []


def _work(classifier: EncoderClassifier, texts: Sequence[Sequence[int]]) -> Work:
    from taskfit.tuning.counts import batches_work

    shapes = [[(len(texts[index]), 0) for index in group] for group in _groups(texts)]
    return batches_work(shapes, "encoder", gathers=True) + take_hidden_work(classifier)
