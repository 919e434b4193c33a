"""One thin file per verb. The roof."""
