"""What is compared: the options of :class:`hpa_merge.HPAConfig` under the name that the tables show."""

from typing import Any

SEQUENTIAL = "sequential"

METHODS: dict[str, dict[str, Any] | None] = {
    SEQUENTIAL: None,  # no merge: OUT is NEW, which is also the first row of the paper's ablation
    "hpa": {},
    "hpa ε̄": {"selection": "safety", "orthogonal": False},
    "hpa φ": {"selection": "shared", "orthogonal": False},
    "hpa ε̄+φ": {"orthogonal": False},
    "hpa product": {"saliency": "product"},
    "energy": {"method": "energy"},
    "energy 2p": {"method": "energy", "p_max": 30.0, "p_min": 10.0},  # is it the columns, or how many?
    "random": {"method": "random"},
    "linear": {"method": "linear"},
    "safe-delta": {"method": "safe-delta"},
    "model-tailor": {"method": "model-tailor"},
    "blocks": {"method": "blocks", "blocks": "1"},  # 6-14 of 32, to scale
}

ABLATION = {  # the paper's five rows, as they are built up
    "1: —": SEQUENTIAL,
    "2: ε̄": "hpa ε̄",
    "3: φ": "hpa φ",
    "4: ε̄, φ": "hpa ε̄+φ",
    "5: ε̄, φ, W̃": "hpa",
}
