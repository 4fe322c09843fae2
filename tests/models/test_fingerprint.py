"""Fingerprints: two models never share one."""

from __future__ import annotations

import json
import shutil

import pytest

from taskfit.models.fingerprint import fingerprint


def test_a_copy_has_the_same_fingerprint_and_a_readme_changes_nothing(folder, tmp_path):
    """Only what decides the model's answers counts."""
    copy = shutil.copytree(folder("gpt2"), tmp_path / "elsewhere")
    assert fingerprint(copy) == fingerprint(folder("gpt2"))
    (copy / "README.md").write_text("about")
    assert fingerprint(copy) == fingerprint(folder("gpt2"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_any_change_of_a_deciding_file_changes_it(folder, tmp_path, name):
    """One byte, at the same length and in the same second."""
    copy = shutil.copytree(folder("chatml"), tmp_path / "copy")
    before = fingerprint(copy)
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    assert fingerprint(copy) != before


def test_a_file_under_another_name_changes_it(folder, tmp_path):
    """Names count, so that contents cannot wander between files."""
    copy = shutil.copytree(folder("gpt2"), tmp_path / "copy")
    before = fingerprint(copy)
    (copy / "model.safetensors").rename(copy / "weights.safetensors")
    assert fingerprint(copy) != before


def test_code_of_its_own_counts_where_it_is_run(folder, tmp_path):
    """Other code is another model; a script that nobody runs is like a readme."""
    copy = shutil.copytree(folder("gpt2"), tmp_path / "copy")
    before = fingerprint(copy)
    (copy / "modeling_own.py").write_text("FACTOR = 1")
    assert fingerprint(copy) == before
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling_own.Own"}}))
    before = fingerprint(copy)
    (copy / "modeling_own.py").write_text("FACTOR = 2")
    assert fingerprint(copy) != before
