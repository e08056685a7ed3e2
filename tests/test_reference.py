"""The reference against hand-computed cases, the tiny checkpoints against their promises, and the two together."""

import json
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from reference import (
    Settings,
    checkpoint_name,
    choose_columns,
    column_budgets,
    curvature,
    linears,
    load_model,
    load_tensors,
    merge_linear,
    module_depths,
    reference_merge,
    same_columns,
)
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


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The matrices are tiny: threads that wait for each other cost twenty times the arithmetic on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- by hand ---


def test_curvature_by_hand():
    # Tokens (1, 0) and (1, 2): Σ x xᵀ = [[2, 2], [2, 4]], 2/N = 1, mean of the diagonal 3, λ = 0.01 · 3 = 0.03.
    expected = torch.tensor([[2.03, 2.0], [2.0, 4.03]], dtype=torch.float64)
    together = curvature([torch.tensor([[1.0, 0.0], [1.0, 2.0]])], 0.01)
    in_two_visits = curvature([torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0]])], 0.01)
    torch.testing.assert_close(together, expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(in_two_visits, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("c", "depth", "share", "n_keep", "n_focus"),
    [
        (64, (0, 4), Fraction(15), 10, 19),  # 9.6, 19.2
        (64, (4, 4), Fraction(5), 3, 6),  # an untied head: 3.2, 6.4
        (112, (2, 3), Fraction(25, 3), 9, 19),  # 15 − ⅔·10 = 8⅓ percent: 9.33, 18.67
        (30, (1, 3), Fraction(35, 3), 4, 7),  # 3.5 exactly: up; 7
        (10, (0, 1), Fraction(15), 2, 3),  # 1.5 exactly: up; 3
        (2, (0, 1), Fraction(15), 0, 1),  # 0.3: none; 0.6: one
    ],
)
def test_column_budgets(c, depth, share, n_keep, n_focus):
    assert column_budgets(c, depth, Settings()) == (share, n_keep, n_focus)


def test_column_budgets_are_exact_for_decimal_options():
    # 12.3 percent of 500 is 61.5 exactly: up to 62. In binary floating point 12.3 is a little more than 12.3.
    assert column_budgets(500, (0, 1), Settings(p_max=12.3))[1] == 62
    assert column_budgets(3, (0, 1), Settings(p_max=90, focus_ratio=2))[2] == 3  # never more than there are


def test_two_columns_by_hand():
    # OLD = [[1, 0], [0, 1]], NEW = [[3, 1], [0, 2]]: ΔW = [[2, 1], [0, 1]], e = (4/2, 2/2) = (2, 1).
    # ⟨ΔW, OLD⟩ = 2 + 1 = 3, ‖OLD‖² = 2: κ = 1.5. NEW − 1.5·OLD = [[1.5, 1], [0, 0.5]].
    # Undamped: safety tokens (1, 0), (0, 2): H_s = diag(1, 4), inverse (1, ¼), ε̄ = (2, 4);
    #           task tokens (2, 0), (0, 1): H_t = diag(4, 1), inverse (¼, 1), ζ̄ = (8, 1).
    # m = ½(log ¼ + log 4) = 0: α = 0.6. p_max = p_min = 50: n_keep = 1, n_focus = 1 · 1 with a ratio of 1.
    # S = {1}, T = {0}, O = ∅: M = {1}. Column 1 goes back to (0, 1).
    old, new = torch.eye(2), torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    safety, task = [torch.tensor([[1.0, 0.0], [0.0, 2.0]])], [torch.tensor([[2.0, 0.0], [0.0, 1.0]])]
    settings = Settings(p_max=50, p_min=50, focus_ratio=1, damping=0)
    result = merge_linear(old, new, safety, task, (0, 1), settings)
    assert result.status == "merged"
    assert (result.share, result.n_keep, result.n_focus) == (50, 1, 1)
    assert result.energy.tolist() == [2, 1]
    assert result.inverse_safety.tolist() == [1, 0.25]
    assert result.inverse_task.tolist() == [0.25, 1]
    assert result.epsilon.tolist() == [2, 4]
    assert result.zeta.tolist() == [8, 1]
    assert result.alpha == pytest.approx(0.6, abs=1e-15)
    assert result.kappa == 1.5
    assert (result.choice.focus_safety, result.choice.focus_task, result.kept) == ({1}, {0}, {1})
    assert result.weight.tolist() == [[1.5, 0.0], [0.0, 1.0]]
    assert result.margin == pytest.approx(0.5)  # S: 4 against 2; T: 8 against 1

    transposed = merge_linear(old.T, new.T, safety, task, (0, 1), settings, input_axis=0)
    assert transposed.weight.tolist() == [[1.5, 0.0], [0.0, 1.0]]
    plain = merge_linear(old, new, safety, task, (0, 1), Settings(**{**vars(settings), "orthogonal": False}))
    assert plain.weight.tolist() == [[3.0, 0.0], [0.0, 1.0]]
    # The product turns the scores round: ε̄ = (2·1, 1·¼), ζ̄ = (2·¼, 1·1), so S = {0}.
    product = merge_linear(old, new, safety, task, (0, 1), Settings(**{**vars(settings), "saliency": "product"}))
    assert (product.epsilon.tolist(), product.zeta.tolist()) == ([2, 0.25], [0.5, 1])
    assert product.kept == {0}


def test_balance_by_hand():
    # Safety tokens (1, 0), (0, 1): H_s = (2/2)·I = I; task tokens three times as large: H_t = 9·I.
    # m = log(1/9) − log(1) = −2 log 3; tanh m = (1/81 − 1)/(1/81 + 1) = −80/82; α = 0.4 + 0.4·(2/82)/2.
    unit = torch.eye(2)
    result = merge_linear(unit, 2 * unit, [unit], [3 * unit], (0, 1), Settings(damping=0))
    assert result.alpha == pytest.approx(0.4 + 0.4 / 82, rel=1e-14)
    turned = merge_linear(unit, 2 * unit, [unit], [3 * unit], (0, 1), Settings(damping=0, saliency="product"))
    assert turned.alpha == pytest.approx(0.8 - 0.4 / 82, rel=1e-14)


EPSILON = [9.0, 8.0, 7.0, 6.0, 5.0, 1.0]
ZETA = [9.0, 1.0, 8.0, 7.0, 2.0, 10.0]


@pytest.mark.parametrize(
    ("selection", "n_keep", "kept"),
    [
        # n_focus = 4: S = {0, 1, 2, 3}, T = {5, 0, 2, 3}, O = {0, 2, 3}, S∖O = {1}.
        # α = ½: φ = (4.5, 7.5, 3, 2.5, 4, −4).
        ("balanced", 0, set()),
        ("balanced", 1, {1}),
        ("balanced", 3, {1, 0, 2}),
        ("balanced", 9, {1, 0, 2, 3}),  # no more than S
        ("safety", 2, {0, 1}),
        ("safety", 5, {0, 1, 2, 3, 4}),
        ("shared", 2, {0, 2}),
        ("shared", 5, {0, 2, 3}),  # no more than O
    ],
)
def test_selections_by_hand(selection, n_keep, kept):
    choice = choose_columns(EPSILON, ZETA, 0.5, n_keep, 4, selection)
    assert choice.phi == (4.5, 7.5, 3.0, 2.5, 4.0, -4.0)
    assert choice.focus_safety == {0, 1, 2, 3}
    assert choice.focus_task == {0, 2, 3, 5}
    assert choice.kept == kept


def test_enough_columns_of_safety_alone_go_by_epsilon():
    # n_focus = 3: S = {0, 1, 2}, T = {3, 4, 5}: nothing shared, the two largest ε̄ of S.
    choice = choose_columns([3.0, 5.0, 4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 2.0, 3.0], 0.5, 2, 3, "balanced")
    assert choice.kept == {1, 2}
    assert choice.decided_by == "epsilon"


def test_ties_go_to_the_lower_index():
    # All alike: S = T = O = {0, 1}, and of them φ is alike too.
    assert choose_columns([1.0] * 4, [1.0] * 4, 0.5, 1, 2, "balanced").kept == {0}
    # Unchanged columns score zero; they fill the focus sets up from below and still lose to no one but by index.
    choice = choose_columns([0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 1.0, 0.0], 0.5, 2, 2, "balanced")
    assert choice.focus_safety == choice.focus_task == {0, 2}
    assert choice.kept == {0, 2}
    assert choice.margin == 1.0  # column 2 against a zero; zeros among themselves decide nothing


def _result(epsilon: list[float], zeta: list[float], n_keep: int, n_focus: int, selection: str = "balanced"):
    """A merged linear in which the scores, and what follows from them, are exchanged for the given ones (α = 0.6)."""
    choice = choose_columns(epsilon, zeta, 0.6, n_keep, n_focus, selection)
    unit = torch.eye(len(epsilon))
    result = merge_linear(unit, 2 * unit, [unit], [unit], (0, 1), Settings(selection=selection))
    scores = {key: torch.tensor(x, dtype=torch.float64) for key, x in (("epsilon", epsilon), ("zeta", zeta))}
    replaced = {"choice": choice, "kept": choice.kept, "n_keep": n_keep, "n_focus": n_focus, "alpha": 0.6}
    return type(result)(**{**vars(result), **scores, **replaced})


def test_same_columns_accepts_near_ties_only():
    # S = {0, 1, 2}, T = {3, 4, 5}: M by ε̄ of S.
    zeta = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]
    far = _result([5.0, 4.0, 3.0, 0.1, 0.1, 0.1], zeta, 1, 3)
    assert same_columns(far, {0}, 1e-4)
    assert not same_columns(far, {1}, 1e-4)
    assert not same_columns(far, {0, 1}, 1e-4)
    assert not same_columns(far, set(), 1e-4)
    assert not same_columns(far, {17}, 1e-4)
    near = _result([5.0, 4.9999, 3.0, 0.1, 0.1, 0.1], zeta, 1, 3)
    assert same_columns(near, {1}, 1e-4)
    assert not same_columns(near, {1}, 1e-5)
    assert not same_columns(near, {2}, 1e-4)


def test_same_columns_follows_a_near_tie_through():
    # n_focus = 2. S = {0, 1}. T = {4, 5}, but column 0 nearly belongs to T in the place of 4. n_keep = 1.
    # As it is: S∖O = {0, 1}: M = {0}. With 0 in T: S∖O = {1}: M = {1}, though ε̄ of 0 and 1 are far apart.
    result = _result([9.0, 5.0, 1.0, 1.0, 0.5, 0.5], [2.99999, 0.0, 0.0, 0.0, 3.0, 7.0], 1, 2)
    assert result.kept == {0}
    assert same_columns(result, {1}, 1e-4)
    assert not same_columns(result, {1}, 1e-7)
    assert not same_columns(result, {2}, 1e-4)
    assert result.margin == pytest.approx(1e-5 / 3, rel=1e-3)


def test_same_columns_measures_phi_by_what_it_is_a_difference_of():
    # S = T = O = {0, 1}. φ = (10 − 0.6·16, 10.001 − 0.6·16.001) = (0.4, 0.4004): a relative 1e-3 of φ, but of scores
    # near 20 a relative 2e-5.
    result = _result([10.0, 10.001, 0.1], [16.0, 16.001, 0.1], 1, 2)
    assert result.kept == {1}
    assert same_columns(result, {0}, 1e-4)
    assert not same_columns(result, {0}, 1e-6)


def test_zeros_are_no_near_tie():
    result = _result([2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0], 2, 2, "safety")
    assert result.kept == {0, 1}
    assert not same_columns(result, {0, 2}, 1e-2)


@pytest.mark.parametrize("selection", ["balanced", "safety", "shared"])
def test_same_columns_accepts_whatever_blurred_scores_choose(selection):
    # Scores on a coarse grid, so that near ties abound; every score then off by up to 1e-3 of itself.
    draw = random.Random(0)
    differing = 0
    for _ in range(300):
        epsilon, zeta = ([draw.randrange(1, 12) * (1 + 1e-5 * draw.random()) for _ in range(12)] for _ in range(2))
        n_keep = draw.randrange(1, 5)
        result = _result(epsilon, zeta, n_keep, 2 * n_keep, selection)
        blurred = [[x * (1 + 1e-3 * draw.uniform(-1, 1)) for x in scores] for scores in (epsilon, zeta)]
        kept = choose_columns(*blurred, result.alpha, n_keep, 2 * n_keep, selection).kept
        assert same_columns(result, kept, 2.01e-3)
        differing += kept != result.kept
        # A kept column against one far below every line is never a near tie.
        worst = min(range(12), key=lambda column: epsilon[column])
        if worst not in result.choice.focus_safety and epsilon[worst] < 0.9 * min(
            epsilon[column] for column in result.choice.focus_safety
        ):
            assert not same_columns(result, {worst, *sorted(result.kept)[1:]}, 2.01e-3)
    assert differing > 20


def test_unchanged_and_uncalibrated():
    unit, tokens, none = torch.eye(2), [torch.eye(2)], []
    assert merge_linear(unit, unit, tokens, tokens, (0, 1), Settings()).status == "unchanged"
    assert merge_linear(unit, unit, none, none, (0, 1), Settings(uncalibrated="error")).status == "unchanged"
    for safety, task in ((none, tokens), (tokens, none)):
        new = merge_linear(unit, 2 * unit, safety, task, (0, 1), Settings())
        assert (new.status, new.weight.tolist()) == ("uncalibrated", [[2, 0], [0, 2]])
        old = merge_linear(unit, 2 * unit, safety, task, (0, 1), Settings(uncalibrated="old"))
        assert (old.status, old.weight.tolist()) == ("uncalibrated", [[1, 0], [0, 1]])
        with pytest.raises(ValueError, match="no calibration token reaches it in both sets"):
            merge_linear(unit, 2 * unit, safety, task, (0, 1), Settings(uncalibrated="error"))


def test_an_old_weight_of_zeros_has_no_component_to_remove():
    result = merge_linear(torch.zeros(2, 2), torch.eye(2), [torch.eye(2)], [torch.eye(2)], (0, 1), Settings())
    assert result.kappa == 0
    assert result.weight.tolist() == [[1, 0], [0, 1]]


# --- the tiny checkpoints, and the reference on them ---


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
        assert len(result.kept) == result.n_keep > 0
        w_old, w_new, merged = (w if axis else w.T for w in (before[key].double(), after[key].double(), result.weight))
        kept = torch.tensor(sorted(result.kept))
        rest = torch.tensor(sorted(set(range(w_old.shape[1])) - result.kept))
        assert torch.equal(merged[:, kept], w_old[:, kept])
        torch.testing.assert_close(merged[:, rest], (w_new - result.kappa * w_old)[:, rest], rtol=1e-12, atol=1e-12)
        # What "orthogonal" promises, in the whole: ⟨W̃ − W_old, W_old⟩ = 0.
        assert abs(((w_new - result.kappa * w_old - w_old) * w_old).sum()) < 1e-9 * (w_old**2).sum()
        assert abs(result.kappa) > 1e-4
        assert 0.4 < result.alpha < 0.8
        # Spread scores: the columns differ by much more than rounding does.
        assert result.epsilon.max() > 2 * result.epsilon.median()
        assert result.margin > 0
        assert same_columns(result, result.kept, 0)
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
