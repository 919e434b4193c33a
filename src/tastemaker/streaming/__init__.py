"""Folds live events and catalogue changes into the state that answers are made from. Floor 2, answering wing."""
