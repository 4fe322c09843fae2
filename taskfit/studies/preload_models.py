"""Imported once by the fork server when a study has language models. It must start no thread."""

import peft
import torch
import transformers
import transformers.models.auto.modeling_auto
import transformers.models.bert.modeling_bert
import transformers.models.llama.modeling_llama

__all__ = ["peft", "torch", "transformers"]
