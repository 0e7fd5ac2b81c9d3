"""Several workers under one supervisor: the processes, and what they say to each other."""
