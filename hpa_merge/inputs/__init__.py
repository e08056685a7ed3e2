"""OLD, NEW and data sets as the user gives them: a folder, a name on the Hub, an adapter, LLaVA's own layout."""
