"""Writes families.md from the rows of the matrix in tests/helpers/; ``--check`` only says whether it is up to date."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests" / "helpers"), str(HERE.parent)]

from families import FAMILIES, IN_BFLOAT16, REFUSED  # noqa: E402

HEAD = """# Families

The families that the tests merge end to end, on tiny random models of transformers' own classes. `docs/families.py`
writes this table from the rows in `tests/helpers/families_*.py`. For every row the tests check that

1. the streamed forward, with every linear observed, gives the logits of the ordinary forward, bit for bit, and loads
   every unit once (a model that loops comes back to units);
2. the merge makes the same decisions as a float64 reference that shares no code with the package, and gives the same
   weights up to rounding; the reference matches tensors on disk to modules and experts by their values;
3. OUT has NEW's shards, names, dtypes, shapes and files, and NEW's bytes wherever nothing was adapted;
4. `from_pretrained` of OUT reports no missing, unexpected or mismatched key.

All run in float32, those marked ² in bfloat16 too; `python tests/nightly.py` runs all of them in bfloat16 and float16
with longer samples. *Images*: through the family's real `processor`, saved with the checkpoint, or as tensors made
`by hand` if the processor needs torchvision or another package; always together with samples without an image.

Classes of transformers that are not listed and consist of the same blocks are merged too.

"""

MIDDLE = """
An input is observed at the product, wherever the weight is multiplied: by its module, by another, as a slice of a
stack, joined with other weights, transposed, or by `einsum`. A weight that is used several times (Zamba's shared
blocks, blocks that run in a loop) is merged once, from all of them, at the depth of the first.
A weight of which something else is made before a product (a slice of its inputs, a factor for each input, a product of
weights) counts as uncalibrated, even if it is also used as it is.

Of a mixture each expert is a linear of its own. Routers (without `--routers`), norms, biases, embeddings, tied heads
and convolutions are NEW's in every family.

## Refused, or left as NEW has it

| what | what happens |
| --- | --- |
"""


def page() -> str:
    rows = ["| family | class | kind | images | note |", "| --- | --- | --- | --- | --- |"]
    for family in FAMILIES:
        mark = "²" if family.name in IN_BFLOAT16 else ""
        cells = (family.name + mark, f"`{family.model}`", family.kind, family.images or "–", family.note or "–")
        rows.append(f"| {' | '.join(cells)} |")
    refused = [f"| {what} | {outcome} |" for what, outcome in REFUSED.items()]
    return HEAD + "\n".join(rows) + "\n" + MIDDLE + "\n".join(refused) + "\n"


def main() -> int:
    path = HERE / "families.md"
    if "--check" in sys.argv:
        return 0 if path.exists() and path.read_text(encoding="utf-8") == page() else 1
    path.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
