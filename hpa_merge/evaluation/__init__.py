"""Does it work? Prompts are answered by a model, answers are judged and scored, scores become figures."""
