"""The words everyone says: columns, events, items, queries, settings, manifest, errors. Data only; floor 0."""
