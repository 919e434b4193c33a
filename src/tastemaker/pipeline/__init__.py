"""The request road: source, hydrate, filter, score, select. Floor 2, answering wing."""
