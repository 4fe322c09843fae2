"""The table of strategies. Adding one touches its own file and one row here.

Other packages add theirs through the entry point group ``taskfit.strategies``: the entry's name is the strategy's
name, its value the ``module:Class``, as in a row here. They are imported when they are asked for.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from taskfit.errors import ConfigError, nearest
from taskfit.strategy.contract import StrategyEntry

__all__ = ["STRATEGIES", "load_class", "name_of", "strategy_entry", "strategy_names"]

STRATEGIES: dict[str, StrategyEntry] = {
    "majority": StrategyEntry(
        "taskfit.tuning.baselines:Majority", "whole", "always the most frequent answer (a floor)"
    ),
    "linear": StrategyEntry(
        "taskfit.tuning.baselines:Linear", "whole", "TF-IDF and logistic regression (an honest floor)"
    ),
    "zero-shot": StrategyEntry(
        "taskfit.prompting.shots:ZeroShot", "program", "ask with the instruction alone", "Brown et al. 2020, section 2"
    ),
    "few-shot": StrategyEntry(
        "taskfit.prompting.shots:FewShot", "program", "ask with k worked examples", "Brown et al. 2020, section 2"
    ),
    "chain-of-thought": StrategyEntry(
        "taskfit.prompting.chain:ChainOfThought",
        "program",
        "reason step by step, then answer",
        "Wei et al. 2022, section 2; Kojima et al. 2022, section 3",
    ),
    "self-consistency": StrategyEntry(
        "taskfit.prompting.chain:SelfConsistency",
        "program",
        "sample several chains of thought and let them vote",
        "Wang et al. 2023, section 2",
    ),
    "least-to-most": StrategyEntry(
        "taskfit.prompting.least_to_most:LeastToMost",
        "program",
        "break the question up and answer the parts in order",
        "Zhou et al. 2023, section 2",
    ),
    "step-back": StrategyEntry(
        "taskfit.prompting.step_back:StepBack",
        "program",
        "ask the general question first",
        "Zheng et al. 2024, section 2",
    ),
    "self-refine": StrategyEntry(
        "taskfit.prompting.self_refine:SelfRefine",
        "program",
        "criticise one's answer and improve it",
        "Madaan et al. 2023, section 2",
    ),
    "prompt-ensemble": StrategyEntry(
        "taskfit.prompting.ensemble:PromptEnsemble",
        "program",
        "ask in all wordings and average, or vote",
        "Jiang et al. 2020, section 4",
    ),
    "prompt-search": StrategyEntry(
        "taskfit.prompting.search:PromptSearch",
        "program",
        "find wording, instruction and examples on validation",
        "Jamieson and Talwalkar 2016, section 2",
    ),
    "lora": StrategyEntry(
        "taskfit.tuning.lora:Lora",
        "weights",
        "train low-rank updates of the linear layers",
        "Hu et al. 2021, section 4",
    ),
    "rslora": StrategyEntry(
        "taskfit.tuning.lora:RsLora",
        "weights",
        "lora scaled by alpha / sqrt(rank), for large ranks",
        "Kalajdzievski 2023, section 3.1",
    ),
    "dora": StrategyEntry(
        "taskfit.tuning.lora:Dora",
        "weights",
        "lora with the weights' lengths trained apart",
        "Liu et al. 2024, section 4",
    ),
    "vera": StrategyEntry(
        "taskfit.tuning.lora:Vera",
        "weights",
        "train vectors that scale random matrices shared by all layers",
        "Kopiczko et al. 2024, section 3",
    ),
    "pissa": StrategyEntry(
        "taskfit.tuning.pissa:Pissa",
        "weights",
        "lora from the largest singular directions of the weights",
        "Meng et al. 2024, section 3",
    ),
    "adalora": StrategyEntry(
        "taskfit.tuning.adalora:AdaLora",
        "weights",
        "lora that moves ranks to the layers that need them",
        "Zhang et al. 2023, section 3",
    ),
    "qlora": StrategyEntry(
        "taskfit.tuning.qlora:QLora",
        "weights",
        "lora beside a base packed into 4 or 8 bits",
        "Dettmers et al. 2023, section 3",
    ),
    "ia3": StrategyEntry(
        "taskfit.tuning.ia3:Ia3",
        "weights",
        "train scales of keys, values and inner activations",
        "Liu et al. 2022, section 3.3",
    ),
    "adapter": StrategyEntry(
        "taskfit.tuning.adapter:Adapter",
        "weights",
        "train small networks inside every block",
        "Houlsby et al. 2019, section 2.1",
    ),
    "prompt-tuning": StrategyEntry(
        "taskfit.tuning.soft_prompts:PromptTuning",
        "weights",
        "train vectors before the embeddings of every prompt",
        "Lester et al. 2021, section 2",
    ),
    "p-tuning": StrategyEntry(
        "taskfit.tuning.soft_prompts:PTuning",
        "weights",
        "the same, made by a small network",
        "Liu et al. 2021 (P-tuning), section 3.2",
    ),
    "prefix-tuning": StrategyEntry(
        "taskfit.tuning.soft_prompts:PrefixTuning",
        "weights",
        "train keys and values before those of every layer",
        "Li and Liang 2021, section 4",
    ),
    "p-tuning-v2": StrategyEntry(
        "taskfit.tuning.soft_prompts:PTuningV2",
        "weights",
        "the same from a random start, without a network",
        "Liu et al. 2022 (P-tuning v2), section 3",
    ),
    "bitfit": StrategyEntry(
        "taskfit.tuning.selective:BitFit",
        "weights",
        "train the biases alone",
        "Ben Zaken et al. 2022, section 3",
    ),
    "norms": StrategyEntry(
        "taskfit.tuning.selective:Norms",
        "weights",
        "train the normalisation layers alone",
        "Zhao et al. 2024, section 3",
    ),
    "last-layers": StrategyEntry(
        "taskfit.tuning.selective:LastLayers",
        "weights",
        "train the last n blocks alone",
        "Howard and Ruder 2018, section 3.3",
    ),
    "head-only": StrategyEntry(
        "taskfit.tuning.selective:HeadOnly",
        "weights",
        "train the layer that gives the answer alone",
        "Kumar et al. 2022, section 2",
    ),
    "random-mask": StrategyEntry(
        "taskfit.tuning.random_mask:RandomMask",
        "weights",
        "train a random share of the weights",
        "Xu and Zhang 2024, section 3",
    ),
    "full": StrategyEntry(
        "taskfit.tuning.full:Full", "weights", "train all weights", "Howard and Ruder 2018, section 3"
    ),
    "continued-pretraining": StrategyEntry(
        "taskfit.tuning.pretraining:ContinuedPretraining",
        "pretraining",
        "learn plain text of the domain or the task first",
        "Gururangan et al. 2020, sections 3 and 4",
    ),
    "encoder": StrategyEntry(
        "taskfit.tuning.encoder:Encoder",
        "whole",
        "fine-tune an encoder as a classifier",
        "Devlin et al. 2019, section 4",
    ),
    "static": StrategyEntry(
        "taskfit.tuning.static:Static",
        "whole",
        "static token vectors from an encoder and logistic regression",
        "Tulkens and van Dongen 2024; Arora et al. 2017, section 3",
    ),
    "linear-probe": StrategyEntry(
        "taskfit.tuning.linear_probe:LinearProbe",
        "whole",
        "logistic regression over a frozen encoder's vectors",
        "Kumar et al. 2022, section 2",
    ),
    "tune": StrategyEntry(
        "taskfit.studies.search:Tune",
        "whole",
        "search another strategy's parameters on validation",
        "Jamieson and Talwalkar 2016, section 2",
    ),
    "distil": StrategyEntry(
        "taskfit.distillation.distil:Distil",
        "whole",
        "a teacher labels rows, a small student learns them",
        "Csanády et al. 2024, section 3; Hinton et al. 2015, section 2; Kim and Rush 2016, section 3.2",
    ),
    "step-by-step": StrategyEntry(
        "taskfit.distillation.distil:StepByStep",
        "whole",
        "the same, with the teacher's reasons as a second target",
        "Hsieh et al. 2023, section 3.2",
    ),
    "cascade": StrategyEntry(
        "taskfit.distillation.cascade:Cascade",
        "whole",
        "a student answers where it is sure, a teacher elsewhere",
        "Chen, Zaharia and Zou 2023, section 3; Angelopoulos et al. 2021, section 2.2",
    ),
}

GROUP = "taskfit.strategies"
"""The entry point group that other packages use."""


def strategy_names() -> tuple[str, ...]:
    """Return all names: those of this table in its order, then those of other packages by alphabet."""
    return (*STRATEGIES, *sorted(_strangers()))


def strategy_entry(name: str) -> StrategyEntry:
    """Return the row of a name.

    Raises:
        ConfigError: there is no such strategy; the message has the nearest name.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    if name in _strangers():
        return _stranger_entry(_strangers()[name])
    raise ConfigError(
        f"unknown strategy {name!r}{nearest(name, strategy_names())}", f"known are {', '.join(strategy_names())}"
    )


def load_class(name: str) -> type:
    """Import the class of a name: a frozen dataclass whose fields are the parameters.

    Raises:
        ConfigError: there is no such strategy, or another package's cannot be imported.
    """
    if name not in STRATEGIES:
        return _load_target(name, strategy_entry(name).target)
    module, _, attribute = STRATEGIES[name].target.partition(":")
    return cast("type", getattr(import_module(module), attribute))


def name_of(part: type) -> str:
    """Return the name under which a class stands in the table.

    Raises:
        ConfigError: it stands nowhere.
    """
    target = f"{part.__module__}:{part.__qualname__}"
    rows = {entry.target: name for name, entry in STRATEGIES.items()}
    rows = {entry.value: name for name, entry in _strangers().items()} | rows
    if target not in rows:
        raise ConfigError(f"{target} stands in no table of strategies; add a row or an entry point in {GROUP!r}")
    return rows[target]


def _load_target(name: str, target: str) -> type:
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"strategy {name!r}: cannot import {target} ({error})") from error
    if not isinstance(found, type):
        raise ConfigError(f"strategy {name!r}: {target} must be a class (got {type(found).__name__})")
    return found


@cache
def _strangers() -> dict[str, EntryPoint]:
    """Return entry points of other packages; one that takes the name of a row here is refused aloud."""
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in STRATEGIES:
            warnings.warn(f"entry point {entry.value} is not used: {entry.name!r} is taskfit's own", stacklevel=2)
        else:
            found[entry.name] = entry
    return found


def _stranger_entry(entry: EntryPoint) -> StrategyEntry:
    """Return the row of another package's class: its part is told by its methods, its summary by its docstring."""
    made = _load_target(entry.name, entry.value)
    parts = {"change": "weights", "prepare": "program", "fit": "whole"}
    part = next((part for method, part in parts.items() if hasattr(made, method)), None)
    if part is None:
        raise ConfigError(f"strategy {entry.name!r}: {entry.value} has none of the methods {', '.join(parts)}")
    return StrategyEntry(entry.value, part, (made.__doc__ or "").strip().split("\n")[0])
