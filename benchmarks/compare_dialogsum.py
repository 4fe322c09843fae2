"""Which strategy for one-paragraph summaries of dialogues, with 500 training rows and three references in the test?"""

from __future__ import annotations

from common import compare_shared

TASK = """
name: dialogsum
kind: generation
data: {train: DATA/train.jsonl.gz, validation: DATA/validation.jsonl, test: DATA/test.jsonl}
instruction: Summarize this conversation.
input: "{{ dialogue }}"
target: "{{ summary | default(summary1) }}"
references:
  - "{{ summary | default(summary1) }}"
  - "{{ summary2 | default('') }}"
  - "{{ summary3 | default('') }}"
metrics: [rouge_l, rouge1, rouge2]
max_answer_tokens: 60
"""

STRATEGIES = [
    "majority",
    "zero-shot",
    "few-shot(k=1)",
    "lora",
    "dora",
    "ia3",
    "last-layers",
    "full",
]

if __name__ == "__main__":
    compare_shared("dialogsum", TASK, STRATEGIES, seeds=3, train_rows=500, description=__doc__ or "")
