"""The tuning step of another month, in the place of your own training: the demo's model learns to describe pictures.

python examples/monthly_retune/tune.py OLD FOLDER makes FOLDER/new (OLD tuned on a task that it does not know),
FOLDER/task.jsonl (128 of the samples) and FOLDER/heldout.jsonl (32 others). OLD is a checkpoint of hpa-merge demo.
--rehearse FILE mixes the samples of an earlier task in, as one does.
"""

import argparse
import sys
import warnings
from pathlib import Path
from random import Random

warnings.simplefilter("ignore")

from transformers import LlavaForConditionalGeneration, LlavaProcessor  # noqa: E402

from hpa_merge.demo.pair import TUNING, train  # noqa: E402
from hpa_merge.demo.runtime import alone  # noqa: E402
from hpa_merge.demo.samples import encode, read_samples, write_samples  # noqa: E402
from hpa_merge.demo.scenes import descriptions  # noqa: E402


def main(old: Path, folder: Path, rehearse: Path | None = None, seed: int = 0) -> None:
    """Tune the model in ``old`` and write what the next merge needs to ``folder``."""
    draw = Random(seed)
    samples, heldout = descriptions(draw, 512), descriptions(draw, 32)
    if rehearse is not None:
        samples += read_samples(rehearse)
        draw.shuffle(samples)
    folder.mkdir(parents=True)
    write_samples(folder / "task.jsonl", samples[:128])
    write_samples(folder / "heldout.jsonl", heldout)
    with alone(seed):
        processor = LlavaProcessor.from_pretrained(old)
        model = LlavaForConditionalGeneration.from_pretrained(old)
        steps = train(model, encode(processor, samples, answered=True), TUNING)
        model.save_pretrained(folder / "new", max_shard_size="1MB")
        processor.save_pretrained(folder / "new")
    print(f"{folder}/new is {old} after {steps} steps on descriptions.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tune a model of hpa-merge demo on a further task.")
    parser.add_argument("old", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rehearse", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.folder.exists():
        sys.exit(f"{options.folder} exists already: name a new folder.")
    main(options.old, options.folder, options.rehearse, options.seed)
