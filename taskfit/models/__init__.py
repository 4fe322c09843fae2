"""From a name or folder to a language model; the embedded model."""

from taskfit.models.language_model import Architecture, LanguageModel
from taskfit.models.load import load, open_folder

__all__ = ["Architecture", "LanguageModel", "load", "open_folder"]
