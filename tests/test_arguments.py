"""Arguments of the public functions: what is wrong is one sentence that names it, what can be meant is accepted."""

import inspect
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from evaluation_cases import jsonl

import hpa_merge
from hpa_merge import ConfigError, HPAConfig, HPAError, api
from hpa_merge.arguments import checked

OTHERS = (hpa_merge.inspect, hpa_merge.push, hpa_merge.verify, hpa_merge.write_report)
FUNCTIONS = [*(getattr(api, name) for name in api.__all__ if name != "session"), *OTHERS]

WRONG: list[Any] = [
    object(),
    2.5,
    -1,
    0,
    True,
    None,
    b"x",
    [object()],
    {"a": object()},
    [],
    {},
    [[]],
    float("nan"),
    print,
]


def arguments_of(function: Callable[..., Any]) -> Iterator[str]:
    """The names of all arguments, with those that the function passes on."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            (passed,) = get_args(inspect.get_annotations(inspect.unwrap(function), eval_str=True)[name])
            yield from passed.__annotations__
        else:
            yield name


CASES = [(function, name) for function in FUNCTIONS for name in arguments_of(function)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of the right types, of which the models are empty folders."""
    folder = tmp_path_factory.mktemp("plain")
    for name in ("old", "new"):
        (folder / name).mkdir()
    file = jsonl(folder / "f.jsonl", {"prompt": "how?", "answer": "so"})
    sets = {"safety_tests": {"s": file}, "task_tests": {"t": file}, "settings": {"a": HPAConfig()}}
    return {
        **{"old": folder / "old", "new": folder / "new", "out": folder / "out", "outs": {folder / "out": HPAConfig()}},
        **{"model": folder / "old", "models": [folder / "old"], "prompts": file, "max_asr": 5, **sets},
        "repo_id": "somebody/out",
    }


def call(function: Callable[..., Any], plain: dict[str, Any], name: str, value: Any) -> Exception | None:
    signature = inspect.signature(function).parameters
    given = {key: each for key, each in plain.items() if key in signature} | {name: value}
    starred = [key for key, each in signature.items() if each.kind is inspect.Parameter.VAR_POSITIONAL]
    positional = [given.pop(key) for key in starred if key in given]
    try:
        function(*positional, **given)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize(("function", "name"), CASES, ids=[f"{f.__name__}-{name}" for f, name in CASES])
def test_a_wrong_value_is_one_sentence(function: Callable[..., Any], name: str, plain: dict[str, Any]) -> None:
    for value in WRONG:
        error = call(function, plain, name, value)
        assert isinstance(error, HPAError), (value, error)  # nothing can be merged or asked here
        assert "\n" not in str(error)
    nobody = call(function, plain, name, object())
    assert str(nobody).startswith(f"{name} is of the type object: it has to be ")
    assert str(nobody).endswith(".")


@pytest.mark.parametrize(
    ("function", "given", "sentence"),
    [
        (
            "merge",
            {"config": [15]},
            "config is of the type list: it has to be an HPAConfig, or a mapping of its options.",
        ),
        ("merge", {"config": {"p_mx": 3}}, "config has no option 'p_mx' (did you mean p_max?)"),
        ("merge", {"config": {"p_max": "much"}}, "p_max is 'much'"),
        ("merge", {"overwrite": "yes"}, "overwrite is 'yes': it has to be True or False."),
        ("merge", {"max_memory": "20GB"}, "max_memory is '20GB': it has to be a whole number."),
        (
            "merge",
            {"task_calib": {"a": "b"}},
            "task_calib is of the type dict: it has to be a path or a list of paths.",
        ),
        ("merge", {"on_progress": True}, "on_progress is True: it has to be a function."),
        ("merge", {"old": None}, "old is None: it has to be a path."),
        ("evaluate", {"metrics": "exact"}, "metrics is 'exact': it has to be a mapping from names to texts."),
        ("evaluate", {"judge": 3}, "judge is 3: it has to be a path or a Guard."),
        ("evaluate", {"batch_size": "8"}, "batch_size is '8': it has to be a whole number."),
        ("evaluate", {"safety_tests": ["a/x.jsonl", "b/x.jsonl"]}, "safety_tests has two files of the same name"),
        ("evaluate", {"max_asr": 101}, "max_asr is 101: it has to be between 0 and 100."),
        ("evaluate", {"samples": 0}, "samples is 0: it has to be 1 or more."),
        ("tune", {"max_asr": float("nan")}, "max_asr is nan: it has to be between 0 and 100."),
        (
            "tune",
            {"settings": [HPAConfig()]},
            "settings is of the type list: it has to be a mapping from names to HPAConfigs.",
        ),
        ("sweep", {"outs": ["out"]}, "outs is of the type list: it has to be a mapping from paths to HPAConfigs."),
        ("calibrate", {"samples": 0}, "samples is 0: it has to be 1 or more."),
        ("calibrate", {"max_new_tokens": 0}, "max_new_tokens is 0: it has to be 1 or more."),
    ],
)
def test_what_is_said(function: str, given: dict[str, Any], sentence: str, plain: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    error = call(getattr(hpa_merge, function), plain, name, value)
    assert isinstance(error, HPAError), error
    assert sentence in str(error)


def test_an_argument_that_there_is_not(plain: dict[str, Any]) -> None:
    for function in FUNCTIONS:
        error = call(function, plain, "max_memmory", 3)
        assert isinstance(error, TypeError)
        assert str(error).startswith(f"{function.__name__}() has no argument max_memmory")
    assert str(call(hpa_merge.merge, plain, "safety_calibb", "f")) == (
        "merge() has no argument safety_calibb (did you mean safety_calib?)."
    )


def test_what_can_be_meant_is_accepted() -> None:
    @checked
    def function(
        config: HPAConfig | None = None,
        tests: dict[str, str | Path] | None = None,
        several: str | Path | list[str | Path] | None = None,
        count: int = 0,
        share: float = 0.0,
    ) -> tuple[Any, ...]:
        return config, tests, several, count, share

    assert function({"p-max": 20})[0] == HPAConfig(p_max=20)
    assert function(tests="unsafe.jsonl")[1] == {"unsafe": Path("unsafe.jsonl")}
    assert function(tests=[Path("a.jsonl"), "b.csv"])[1] == {"a": Path("a.jsonl"), "b": Path("b.csv")}
    assert function(tests={"x": "a.jsonl"})[1] == {"x": "a.jsonl"}
    assert function(several=(path for path in ("a", Path("b"))))[2] == ["a", Path("b")]
    assert function(several="a")[2] == "a"
    count = function(count=np.int64(3))[3]
    assert (count, type(count)) == (3, int)
    assert function(share=Fraction(1, 2))[4] == 0.5
    assert type(function(share=np.float32(0.5))[4]) is float
    with pytest.raises(ConfigError, match="share is of the type Decimal: it has to be a number"):
        function(share=Decimal(1))  # type: ignore[arg-type]
