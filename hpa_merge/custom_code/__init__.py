"""The code that a checkpoint brings: which files it is, and how it is run for a user who trusts it."""
