"""What of LLaVA's own layout cannot be read gets one sentence, before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import Call, TinyCase, assert_refused, assert_refused_cheaply
from safetensors.torch import save_file
from tiny_original_llava import Original, edit_config, make_original, read_tensors

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.errors import CheckpointError
from hpa_merge.inputs.tower import with_tower


@pytest.fixture(name="call")
def original_call(tiny: Callable[..., TinyCase], tmp_path: Path) -> Callable[..., Call]:
    def make(**settings: Any) -> Call:
        pair = make_original(tiny("llava"), tmp_path, **settings)
        return _call(pair, tmp_path)

    return make


def _call(pair: Original, folder: Path) -> Call:
    return Call(folder, pair.old, pair.new, pair.safety, pair.task, folder / "out", ("--vision-tower", str(pair.tower)))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"mm_projector_type": "ldp"}, "OLD's config.json has 'ldp' for mm_projector_type, and of LLaVA's own layout"),
        ({"mm_vision_select_feature": "cls"}, "'cls' for mm_vision_select_feature"),
        ({"image_aspect_ratio": "anyres"}, "'anyres' for image_aspect_ratio, and of LLaVA's own layout only square or"),
        ({"mm_patch_merge_type": "spatial_unpad"}, "'spatial_unpad' for mm_patch_merge_type"),
        ({"mm_resampler_type": "perceiver"}, "'perceiver' for mm_resampler_type"),
        ({"s2": True}, "True for s2"),
        ({"mm_vision_select_layer": -5}, "-5 for mm_vision_select_layer, and its vision tower has 3 layers"),
        ({"mm_vision_select_layer": [-2, -3]}, "[-2, -3] for mm_vision_select_layer"),
        ({"mm_hidden_size": 64}, "OLD's vision tower has 64 channels and the folder that is given for it 48"),
        ({"mm_hidden_size": None}, "None for mm_hidden_size"),
        ({"hidden_size": "64"}, "'64' for hidden_size"),
        ({"num_hidden_layers": 10**9}, "1e+09 for num_hidden_layers, which is too many"),
        ({"quantization_config": {"quant_method": "hqq"}}, "is quantised (quantization_config in config.json"),
        ({"architectures": ["LlavaMptForCausalLM"]}, "does not have it: leave it out."),
    ],
)
def test_a_config_that_asks_for_something_else(
    settings: dict[str, Any], complaint: str, call: Callable[..., Call]
) -> None:
    assert_refused_cheaply(call(**settings), complaint)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (
            {"model_type": "siglip_vision_model"},
            "OLD's vision tower is a siglip_vision_model, and of LLaVA's own layout",
        ),
        ({"hidden_size": 96}, "OLD's vision tower has 48 channels and the folder that is given for it 96"),
        ({"num_hidden_layers": 2}, "OLD's vision tower has 3 layers and the folder that is given for it 2"),
        ({"num_hidden_layers": 10**9}, "the vision tower's config.json has 1e+09 for num_hidden_layers"),
        ({"intermediate_size": 64}, "encoder.layers.0.mlp.fc1.bias has shape [96] where its config.json asks for [64]"),
        ({"patch_size": [14, 14]}, "its vision tower has images of 28 and patches of [14, 14]"),
        ({"patch_size": 0}, "is not one that transformers"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_another_tower(
    settings: dict[str, Any],
    complaint: str,
    inside: bool,
    call: Callable[..., Call],
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = call(inside=inside, whole_clip=False)
    edit_config(made.folder / "clip", **settings)
    assert_refused(made, capsys, complaint)


def test_a_tower_that_is_not_there(call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    made = call(mm_vision_tower="openai/clip-vit-large-patch14-336")
    made.options = ()
    name = "its vision tower openai/clip-vit-large-patch14-336 is no folder here"
    assert_refused(made, capsys, f"{name}: give the folder of that CLIP model with --vision-tower.")
    for folder in (made.old, made.new):
        edit_config(folder, mm_vision_tower="x" * 5000)
    assert_refused(made, capsys, "is no folder here: give the folder of that CLIP model")
    for folder in (made.old, made.new):
        edit_config(folder, mm_vision_tower=None)
    assert_refused(made, capsys, "its vision tower has no name in config.json: give the folder")
    made.options = ("--vision-tower", str(made.folder / "nowhere"))
    assert_refused(made, capsys, "nowhere is not a folder: give the folder of the CLIP model.")
    made.options = ("--vision-tower", str(made.folder / "squared_task"))
    assert_refused(made, capsys, "squared_task has no config.json: give the folder of the CLIP model.")


def test_a_tower_whose_weights_cannot_be_read(call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    made = call(inside=False)
    path = made.folder / "clip" / "model.safetensors"
    tensors = read_tensors(path.parent)
    path.rename(path.with_name("pytorch_model.bin"))
    assert_refused(made, capsys, "json, only pytorch_model.bin, and pickles are not read")
    save_file({"vision_model.x.weight": torch.zeros(4, dtype=torch.int8)}, path)
    assert_refused(made, capsys, "is quantised (the tensor vision_model.x.weight in model.safetensors is I8)")
    gone = "vision_model.encoder.layers.1.mlp.fc1.weight"
    save_file({key: value for key, value in tensors.items() if key != gone}, path)
    assert_refused(made, capsys, "has no tensor for model.vision_tower.encoder.layers.1.mlp.fc1.weight")
    damaged = tensors | {gone: tensors[gone].index_fill(0, torch.tensor([3]), torch.nan)}
    save_file(damaged, path)
    complaint = "tensor model.vision_tower.vision_tower.vision_model.encoder.layers.1.mlp.fc1.weight holds NaN"
    assert_refused(made, capsys, complaint)


def test_an_image_without_an_image_processor(call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    made = call()
    (made.folder / "clip" / "preprocessor_config.json").unlink()
    assert_refused(made, capsys, "has no preprocessor_config.json, and ")


def test_an_out_in_the_tower(call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    made = call()
    made.out = made.folder / "clip" / "out"
    assert_refused(made, capsys, "and inputs are never written to")


@pytest.mark.parametrize("options", [("--vision-tower", "clip"), ("--conversation", "v1")])
def test_options_of_this_layout_alone(
    options: tuple[str, str], make_call: Callable[..., Call], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_call("llava")
    made.options = options
    option = options[0].removeprefix("--").replace("-", "_")
    assert_refused(made, capsys, f"{option} is only for LLaVA's own layout, and OLD {made.old} does not have it: leave")


def test_a_tower_is_looked_for_here_and_beside_the_checkpoint(
    tiny: Callable[..., TinyCase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_original(tiny("llava"), tmp_path, mm_vision_tower="towers/clip")
    with Checkpoint.open(pair.new, "NEW") as checkpoint:
        with pytest.raises(CheckpointError, match="towers/clip is no folder here"):
            with_tower(checkpoint, None, HPAConfig())
        (tmp_path / "towers").mkdir()
        shutil.move(pair.tower, tmp_path / "towers")
        assert with_tower(checkpoint, None, HPAConfig()).tower == tmp_path / "towers" / "clip"
        monkeypatch.chdir(tmp_path)
        assert with_tower(checkpoint, None, HPAConfig()).tower == Path("towers/clip")


def test_config_json_is_not_all_that_is_checked(call: Callable[..., Call], capsys: pytest.CaptureFixture[str]) -> None:
    """A projector of other sizes than config.json has it."""
    made = call()
    for folder in (made.old, made.new):
        config = json.loads((folder / "config.json").read_text())
        edit_config(folder, mm_projector_type="mlp3x_gelu")
        assert config["mm_projector_type"] == "mlp2x_gelu"
    assert_refused(made, capsys, "has no tensor for model.multi_modal_projector.4.bias and 1 more")
