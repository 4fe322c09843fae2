"""Train and measure the small classifier of rude texts; see README.md."""

from __future__ import annotations

import gzip
import json
import lzma
import random
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from taskfit.evaluation.toxicity import BUCKETS, ToxicityClassifier, features
from taskfit.files import write_bytes, write_text

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
OUT = ROOT / "taskfit" / "evaluation"
SEED = 0
PROSE = {"train": 16_000, "validation": 2_000, "test": 2_000}
MOST_DOCUMENTS = 2_000
STRENGTHS = (3.0, 10.0, 30.0, 100.0)


def tweets(split: str) -> tuple[list[str], list[bool]]:
    """Tweets, and whether most judges called them hate speech or offensive."""
    folder = DATA / "hate_speech_offensive"
    path = folder / f"{split}.jsonl"
    content = path.read_bytes() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes())
    rows = [json.loads(line) for line in content.decode().splitlines()]
    return [row["tweet"] for row in rows], [row["label"] != "neither" for row in rows]


def paragraphs(file_name: str) -> list[str]:
    """Pieces of prose as long as tweets: the first sentences of a paragraph, from one to three."""
    rng, found = random.Random(SEED), list[str]()
    with lzma.open(DATA / "plain_text" / file_name, "rt", encoding="utf-8") as file:
        for line in islice(file, MOST_DOCUMENTS):
            for paragraph in json.loads(line)["text"].split("\n\n"):
                sentences = paragraph.replace("\n", " ").split(". ")
                piece = ". ".join(sentences[: rng.randint(1, 3)])
                if 20 <= len(piece) <= 400:
                    found.append(piece)
    rng.shuffle(found)
    return found


def matrix(texts: Sequence[str]) -> Any:
    """Hashed features of the texts, shape (texts, BUCKETS), sparse."""
    from scipy.sparse import csr_array

    rows = [features(text) for text in texts]
    ends = np.cumsum([0, *(len(places) for places, _ in rows)])
    places = np.concatenate([places for places, _ in rows])
    values = np.concatenate([values for _, values in rows])
    return csr_array((values, places, ends), shape=(len(texts), BUCKETS))


def balanced(right: np.ndarray, labels: np.ndarray) -> float:
    """Mean share of right judgements over rude and other texts."""
    return float(np.mean([right[labels == value].mean() for value in (False, True)]))


def main() -> None:
    """Train, choose, measure, write."""
    from sklearn.linear_model import LogisticRegression

    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing; the data sets belong there")
    held = paragraphs("validation.jsonl.xz")
    prose = {
        "train": paragraphs("train.jsonl.xz")[: PROSE["train"]],
        "validation": held[: PROSE["validation"]],
        "test": held[PROSE["validation"] :][: PROSE["test"]],
    }
    said = {split: tweets(split) for split in PROSE}
    texts = {split: [*said[split][0], *prose[split]] for split in PROSE}
    labels = {split: np.array([*said[split][1], *[False] * len(prose[split])]) for split in PROSE}
    inputs = {split: matrix(texts[split]) for split in PROSE}
    is_tweet = {split: np.arange(len(texts[split])) < len(said[split][0]) for split in PROSE}
    # of the training weight a third each: rude tweets, other tweets, prose
    parts = [labels["train"], ~labels["train"] & is_tweet["train"], ~is_tweet["train"]]
    weight = sum(part / part.sum() for part in parts) * len(texts["train"]) / 3
    best: tuple[float, float, Any] = (-1.0, 0.0, None)
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000)
        model.fit(inputs["train"], labels["train"], sample_weight=weight)
        right = model.predict(inputs["validation"]) == labels["validation"]
        tweet = is_tweet["validation"]
        figure = (balanced(right[tweet], labels["validation"][tweet]) * 2 + right[~tweet].mean()) / 3
        print(f"C {strength}: validation {figure:.4f}, prose {right[~tweet].mean():.4f}", flush=True)
        if figure > best[0]:
            best = (figure, strength, model)
    chosen = best[2]
    stored = chosen.coef_[0].astype(np.float16)
    classifier = ToxicityClassifier(stored.astype(np.float64), float(np.float32(chosen.intercept_[0])), {})
    rude = classifier.probabilities(texts["test"]) >= 0.5
    truth, tweet = labels["test"], is_tweet["test"]
    facts = {
        "format": 1,
        "data": "hate_speech_offensive, MIT (Davidson et al. 2017), and prose of open licences",
        "strength": best[1],
        "accuracy": [int((rude == truth)[tweet].sum()), int(tweet.sum())],
        "hits": [int(rude[truth].sum()), int(truth.sum())],
        "false_alarms_tweets": [int(rude[~truth & tweet].sum()), int((~truth & tweet).sum())],
        "false_alarms_prose": [int(rude[~tweet].sum()), int((~tweet).sum())],
        "rude_share_of_tweets": float(truth[tweet].mean()),
    }
    numbers = {"weights": stored, "intercept": np.array([classifier.intercept], dtype=np.float32)}
    write_bytes(OUT / "toxicity.safetensors", save(numbers))
    write_text(OUT / "toxicity.json", json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))


if __name__ == "__main__":
    main()
