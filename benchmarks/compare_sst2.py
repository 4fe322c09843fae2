"""Which strategy for the sentiment of film reviews, with 500 training rows?"""

from __future__ import annotations

from common import compare_shared

TASK = """
name: sst2
kind: classification
data: {train: DATA/train.jsonl, validation: DATA/validation.jsonl, test: DATA/test.jsonl}
instruction: Is this film review positive or negative?
input: "Review: {{ sentence }}"
target: "{{ label }}"
metrics: [accuracy, macro_f1]
"""

STRATEGIES = [
    "majority",
    "linear",
    "zero-shot",
    "few-shot(k=4)",
    "lora",
    "full",
    "last-layers",
    "encoder",
    "encoder(tune=lora)",
]

if __name__ == "__main__":
    compare_shared("sst2", TASK, STRATEGIES, seeds=3, train_rows=500, description=__doc__ or "")
