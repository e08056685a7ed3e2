"""Make the toy pair that lies beside this file: a two-layer Llama before and after a made-up tuning step.

    python make_toy_pair.py FOLDER

The pair is committed, so that every machine merges the same bytes; this script is here to say where it came from.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 64


def main(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder / "old")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * parameter.std() * torch.randn_like(parameter) + 0.01 * parameter
    model.save_pretrained(folder / "new")
    for name, samples in (("safety", 4), ("task", 12)):
        rows = [torch.randint(0, VOCABULARY, (12 + i,)).tolist() for i in range(samples)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"input_ids": row}) + "\n" for row in rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
