"""Libraries that cannot be imported as they are installed; rooms that import transformers import these first."""
