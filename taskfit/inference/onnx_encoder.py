"""An encoder with its head as an ONNX file: written through torch, computed by ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taskfit.errors import MissingExtraError, PredictorError
from taskfit.inference.packed_encoder import BATCH_TOKENS, packed_batches

__all__ = ["OnnxEncoder", "write_onnx", "write_onnx_int8"]

_INSTALL = "Run: pip install 'taskfit[export]'"
_EXAMPLE = ((2, 3, 4, 5, 6), (2, 3, 4))


class OnnxEncoder:
    """An exported encoder; the file is read whole, so it can name no other file.

    Args:
        path: the file.
        classes: of its logits.
        pad_id: the padding token.
        threads: that compute one batch.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        PredictorError: the file is none that it can compute, or does not take token ids and give these classes.
    """

    def __init__(self, path: Path, classes: int, pad_id: int, threads: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError(
                f"{path} needs the package onnxruntime, which is not installed. {_INSTALL}"
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # it has many kinds of its own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise PredictorError(f"{path} cannot be computed: {reason}") from error
        names = [one.name for one in self._session.get_inputs()]
        shapes = [one.shape for one in self._session.get_outputs()]
        if names != ["input_ids", "attention_mask"] or len(shapes) != 1 or shapes[0][-1] != classes:
            raise PredictorError(
                f"{path} must take input_ids and attention_mask and give {classes} classes (got {names}, {shapes})"
            )
        self._classes = classes
        self._pad_id = pad_id

    def logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of the classes, float32, shape (texts, classes), in the order of the texts."""
        found = torch.empty(len(texts), self._classes)
        for batch in packed_batches([len(ids) for ids in texts], BATCH_TOKENS):
            ids, mask = _padded([texts[index] for index in batch], self._pad_id)
            given = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}
            found[batch] = torch.from_numpy(self._session.run(None, given)[0])
        return found


def write_onnx(classifier: nn.Module, path: Path) -> None:
    """Write a classifier in float32: ids and mask, shape (batch, length), to logits, shape (batch, classes).

    The classifier itself becomes what is written: give a copy of one that is still to predict.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise MissingExtraError(f"exporting needs the packages onnx and onnxscript. {_INSTALL}") from None
    own: Any = classifier.float().eval()
    own.encoder.config._attn_implementation = "eager"  # the one whose graph is plain products
    ids, mask = _padded(_EXAMPLE, 0)
    rows = torch.export.Dim("rows")
    tokens = torch.export.Dim("tokens", min=2, max=own.encoder.config.max_position_embeddings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's exporter about itself
        torch.onnx.export(
            own,
            (ids, mask),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes=({0: rows, 1: tokens}, {0: rows, 1: tokens}),
        )


def write_onnx_int8(classifier: nn.Module, path: Path) -> None:
    """Write a classifier with weights of 8 bits, a scale a channel; inputs of products are rounded as they come.

    Products that narrow, those behind the activation of a layer, stay in float32: few of their inputs are large and one
    scale for all rounds the others away. So does the head, which costs nothing. Weights keep to 7 of the 8 bits, for
    processors without VNNI add pairs of products in 16 bits, which would overflow: a file that was accepted here would
    answer otherwise there, and nobody would be told.

    Raises:
        MissingExtraError: the packages that write ONNX are not installed.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError:
        raise MissingExtraError(f"exporting needs the packages onnx and onnxruntime. {_INSTALL}") from None
    write_onnx(classifier, path)
    model = onnx.load(path)
    del model.graph.value_info[:]  # the exporter's shapes of weights are those before it turned them
    with _without_advice():
        quantize_dynamic(
            model,
            path,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_kept_whole(model.graph),
        )


def _kept_whole(graph: Any) -> list[str]:
    """Return the names of the products of tokens that give fewer features than they take, and of those of texts."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer if len(weight.dims) == 2}
    weights = {node.name: shapes.get(node.input[1]) for node in graph.node if node.op_type == "MatMul"}
    narrowing = [name for name, shape in weights.items() if shape is not None and shape[0] > shape[1]]
    of_texts = [f"{node.name}_MatMul" for node in graph.node if node.op_type == "Gemm"]  # the quantizer renames them
    return narrowing + of_texts


@contextmanager
def _without_advice() -> Iterator[None]:
    """The library advises through the root logger to simplify the graph first, which the exporter has done."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _padded(texts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask, shape (texts, longest)."""
    longest = max(len(ids) for ids in texts)
    ids = torch.tensor([[*text, *[pad_id] * (longest - len(text))] for text in texts])
    return ids, torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
