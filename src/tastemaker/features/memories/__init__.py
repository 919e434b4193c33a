"""What is remembered of events. Each memory has two roads to the same content: a table at once, and one event after another."""
