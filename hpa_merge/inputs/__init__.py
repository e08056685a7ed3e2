"""OLD, NEW and data sets as they are given: a folder, a name on the Hub, an adapter, LLaVA's own layout."""
