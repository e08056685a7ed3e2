"""A model card's metadata, as huggingface_hub reads them."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load


def data_of(card: str, tmp_path: Path) -> dict[str, Any]:
    """The metadata, as huggingface_hub reads them in every way that it has."""
    path = tmp_path / "card.md"
    path.write_bytes(card.encode("utf-8", "surrogateescape"))
    if not any("\udc80" <= c <= "\udcff" for c in card):
        loaded = metadata_load(path)
        assert ModelCard.load(path).data.to_dict() == loaded
        return loaded
    return ModelCard(card).data.to_dict()
