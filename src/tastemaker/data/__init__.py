"""Raw files to clean tables, splits and sequences. Floor 2, learning wing."""
