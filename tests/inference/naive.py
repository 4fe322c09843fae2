"""The slow and plain way: one request at a time, the whole sequence, transformers' own methods."""

from __future__ import annotations

import torch

from taskfit.inference.requests import Generate, Score
from taskfit.models import LanguageModel
from taskfit.models.encoding import encode


def naive_scores(model: LanguageModel, request: Score, *, in_front: int = 0) -> list[float]:
    """Score every continuation in a pass of its own, in float64 after the model.

    ``in_front``: positions that a tuning method puts in front of the prompt.
    """
    encoded = encode(model, request.prompt, request.continuations)
    scores = []
    for answer in encoded.answers:
        if model.architecture == "encoder-decoder":
            start = model.module.config.decoder_start_token_id
            inputs = {
                "input_ids": torch.tensor([encoded.prompt]),
                "decoder_input_ids": torch.tensor([[start, *answer[:-1]]]),
            }
            first = 0
        else:
            inputs = {"input_ids": torch.tensor([[*encoded.prompt, *answer[:-1]]])}
            first = in_front + len(encoded.prompt) - 1
        with torch.no_grad():
            logits = model.module(**inputs).logits[0].double()
        logprobs = logits.log_softmax(-1)
        scores.append(sum(float(logprobs[first + place, token]) for place, token in enumerate(answer)))
    return scores


def naive_greedy(model: LanguageModel, request: Generate) -> list[int]:
    """Generate with transformers' own method; return the new ids, end token included."""
    encoded = encode(model, request.prompt, room=request.max_tokens)
    ids = torch.tensor([encoded.prompt])
    with torch.no_grad():
        out = model.module.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=request.max_tokens,
            eos_token_id=list(model.end_token_ids),
            pad_token_id=model.tokenizer.pad_token_id,
        )[0].tolist()
    return out[1:] if model.architecture == "encoder-decoder" else out[len(encoded.prompt) :]
