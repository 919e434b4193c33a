"""Event to change of state; state and query to numbers; the same lines offline and online. Floor 1."""
