"""The tiny checkpoints against their promises, and the reference on them."""

import json
import math
from pathlib import Path

import pytest
import torch
from reference import checkpoint_name, linears, load_model, load_tensors, module_depths, reference_merge, same_columns
from tiny_models import (
    ARCHITECTURES,
    SPARSE_SUFFIXES,
    UNCHANGED_SUFFIXES,
    VISION_ARCHITECTURES,
    make_calibration,
    make_pair,
    model_inputs,
)
from transformers import AutoTokenizer

TIED = {"qwen2_tied", "gpt2", "gemma3"}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    name = request.param
    return name, *make_pair(name, tmp_path_factory.mktemp(name))


def test_tiny_checkpoints_load_generate_and_differ(pair):
    name, old, new = pair
    prompt = AutoTokenizer.from_pretrained(new)("the red fox", return_tensors="pt")["input_ids"]
    assert prompt[0, 0] == 1
    logits = []
    for folder in (old, new):
        model = load_model(folder)
        assert model.dtype == torch.float32
        with torch.no_grad():
            logits.append(model(input_ids=prompt, use_cache=False).logits)
        generated = model.generate(input_ids=prompt, max_new_tokens=4, do_sample=False)
        assert generated.shape[1] > prompt.shape[1]
    assert logits[0].isfinite().all()
    assert 0.05 < (logits[0] - logits[1]).std() / logits[0].std() < 1  # tuned, not another model
    assert (new / "model.safetensors.index.json").exists()
    assert (new / "chat_template.jinja").exists() == (name != "gpt2")

    before, after = load_tensors(old), load_tensors(new)
    assert before.keys() == after.keys()
    assert ("lm_head.weight" in after or "language_model.lm_head.weight" in after) == (name not in TIED)
    unchanged = {tensor for tensor in after if torch.equal(before[tensor], after[tensor])}
    assert unchanged == {tensor for tensor in after if tensor.endswith(UNCHANGED_SUFFIXES)}
    assert len(unchanged) == (2 if name in VISION_ARCHITECTURES else 1)


def test_tiny_checkpoints_depend_on_the_seed_alone(tmp_path):
    first, second, other = (load_tensors(make_pair("llama", tmp_path / str(i), seed=i // 2)[1]) for i in range(3))
    assert all(torch.equal(first[tensor], second[tensor]) for tensor in first)
    assert not any(torch.equal(first[tensor], other[tensor]) for tensor in first)


def test_tiny_checkpoints_in_bfloat16(tmp_path):
    for folder in make_pair("qwen2_tied", tmp_path, dtype=torch.bfloat16):
        assert load_model(folder).dtype == torch.bfloat16
        assert {tensor.dtype for tensor in load_tensors(folder).values()} == {torch.bfloat16}


def test_calibration_files(tmp_path):
    for name in ARCHITECTURES:
        safety, task = make_calibration(name, tmp_path / name)
        lines = [[json.loads(line) for line in path.read_text().splitlines()] for path in (safety, task)]
        assert [len(each) for each in lines] == [4, 6]
        inputs = model_inputs(name, safety) + model_inputs(name, task)
        assert len({sample["input_ids"].shape for sample in inputs}) > 4
        assert {len(sample) for sample in lines[0]} == ({2} if name == "gpt2" else {1})
        with_image = ["pixel_values" in sample for sample in inputs]
        assert (any(with_image[:4]), any(with_image[4:]), all(with_image)) == (
            *[name in VISION_ARCHITECTURES] * 2,
            False,
        )
        assert all((sample["input_ids"] == 1).sum() == 1 for sample in inputs)


def test_reference_on_every_architecture(pair, tmp_path):
    name, old, new = pair
    safety, task = (model_inputs(name, path) for path in make_calibration(name, tmp_path))
    results = reference_merge(old, new, safety, task)
    before, after = load_tensors(old), load_tensors(new)
    embeddings = ("embed_tokens.weight", "position_embedding.weight", "wte.weight", "wpe.weight")
    matrices = {key for key, tensor in after.items() if tensor.ndim == 2 and not key.endswith(embeddings)}
    assert results.keys() == matrices
    assert all(result.name == key for key, result in results.items())
    unchanged = {key for key, result in results.items() if result.status == "unchanged"}
    assert unchanged == {key for key in after if key.endswith(UNCHANGED_SUFFIXES)}
    assert not [key for key, result in results.items() if result.status == "uncalibrated"]

    decided_by = set()
    for key, result in results.items():
        if result.status == "unchanged":
            assert torch.equal(result.weight, after[key].double())
            continue
        axis = result.input_axis
        assert axis == (0 if name == "gpt2" else 1)
        assert len(result.restored) == result.n_restored > 0
        w_old, w_new, merged = (w if axis else w.T for w in (before[key].double(), after[key].double(), result.weight))
        restored = torch.tensor(sorted(result.restored))
        rest = torch.tensor(sorted(set(range(w_old.shape[1])) - result.restored))
        assert torch.equal(merged[:, restored], w_old[:, restored])
        torch.testing.assert_close(merged[:, rest], (w_new - result.kappa * w_old)[:, rest], rtol=1e-12, atol=1e-12)
        # What "orthogonal" promises, in the whole: ⟨W̃ − W_old, W_old⟩ = 0.
        assert abs(((w_new - result.kappa * w_old - w_old) * w_old).sum()) < 1e-9 * (w_old**2).sum()
        assert abs(result.kappa) > 1e-4
        assert 0.4 < result.alpha < 0.8
        # Spread scores: the columns differ by much more than rounding does.
        assert result.epsilon.max() > 2 * result.epsilon.median()
        assert result.margin > 0
        assert same_columns(result, result.restored, 0)
        decided_by.add(result.choice.decided_by)
        if key.endswith(SPARSE_SUFFIXES):
            assert (result.energy > 0).sum() < result.n_focus  # ties at zero fill the focus sets
    assert "phi" in decided_by


def test_uncalibrated_where_no_safety_sample_has_an_image(tmp_path):
    old, new = make_pair("llava", tmp_path)
    safety, task = (model_inputs("llava", path) for path in make_calibration("llava", tmp_path / "calibration"))
    results = reference_merge(old, new, [sample for sample in safety if "pixel_values" not in sample], task)
    blind = {key for key, result in results.items() if result.status == "uncalibrated"}
    assert blind == {key for key in results if not key.startswith("language_model.")} - {
        key for key in results if key.endswith(UNCHANGED_SUFFIXES)
    }
    assert all(results[key].tokens[0] == 0 < results[key].tokens[1] for key in blind)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", {"model.layers.3.mlp.down_proj.weight": (3, 4), "lm_head.weight": (4, 4)}),
        ("gpt2", {"transformer.h.2.attn.c_attn.weight": (2, 3)}),
        (
            "llava",
            {
                "vision_tower.encoder.layers.2.mlp.fc2.weight": (2, 3),
                "multi_modal_projector.linear_2.weight": (0, 3),
                "language_model.model.layers.1.mlp.up_proj.weight": (1, 3),
                "language_model.lm_head.weight": (3, 3),
            },
        ),
        (
            "qwen2_5_vl",
            {
                "visual.blocks.1.attn.qkv.weight": (1, 2),
                "visual.merger.mlp.2.weight": (0, 3),
                "model.layers.2.self_attn.q_proj.weight": (2, 3),
                "lm_head.weight": (3, 3),
            },
        ),
    ],
)
def test_depths(name, expected, tmp_path):
    model = load_model(make_pair(name, tmp_path)[1])
    depths = {checkpoint_name(model.config.model_type, path): depth for path, depth in module_depths(model).items()}
    assert depths.keys() == {checkpoint_name(model.config.model_type, path) for path in linears(model)}
    assert expected.items() <= depths.items()


def test_given_depths_replace_the_derived_ones(tmp_path):
    old, new = make_pair("gpt2", tmp_path)
    safety, task = (model_inputs("gpt2", path) for path in make_calibration("gpt2", tmp_path / "calibration"))
    names = reference_merge(old, new, safety, task).keys()
    results = reference_merge(old, new, safety, task, depth_of=dict.fromkeys(names, (1, 2)))
    assert {result.share for result in results.values() if result.status == "merged"} == {10.0}
    assert math.isinf(next(result.margin for result in results.values() if result.status == "unchanged"))
