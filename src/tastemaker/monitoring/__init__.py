"""Counters and alerts. Floor 2, answering wing."""
