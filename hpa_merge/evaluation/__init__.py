"""Does it work? Prompts are answered by a model, answers are judged and scored, and scores become figures.

Read in this order: :mod:`prompts` (a test file -> prompts with their references), :mod:`generate` and :mod:`endpoint`
(prompts -> answers), :mod:`thinking` and :mod:`broken` (an answer -> thoughts and final answer, and whether that says
anything), :mod:`judges`, :mod:`refusals`, :mod:`guards` and :mod:`verdicts` (does an answer to an unsafe prompt refuse,
is it safe), :mod:`scoring`, :mod:`choices`, :mod:`words` and :mod:`vqa` (an answer and its references -> a score),
:mod:`intervals` (scores -> a figure with its confidence interval), :mod:`collecting` (all of it for one model, through
files), :mod:`running` (several models), :mod:`candidates`, :mod:`workplace` and :mod:`tuning` (the setting that is safe
enough), :mod:`safety_set` (the aligned model's own refusals), :mod:`metrics` and :mod:`sequence` (a sequence of tuning
steps -> the paper's metrics).
"""
