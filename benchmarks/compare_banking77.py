"""Which strategy for 77 banking intents, with 500 training rows?"""

from __future__ import annotations

from common import compare_shared

TASK = """
name: banking77
kind: classification
data: {train: DATA/train.jsonl.gz, test: DATA/test.jsonl}
instruction: What does this bank customer want?
input: "Message: {{ text }}"
target: "{{ category }}"
metrics: [accuracy, macro_f1]
"""

STRATEGIES = [
    "majority",
    "linear",
    "zero-shot",
    "lora",
    "full",
    "last-layers",
    "encoder",
    "encoder(tune=lora)",
]

if __name__ == "__main__":
    compare_shared("banking77", TASK, STRATEGIES, seeds=3, train_rows=500, description=__doc__ or "")
