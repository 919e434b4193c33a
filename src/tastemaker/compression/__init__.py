"""Makes a trained bundle smaller and faster, and proves what each step cost. Floor 4, learning wing."""
