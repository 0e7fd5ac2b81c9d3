# C types for sequence_sets.py: none, it is only compiled; the rules are in input_buffer.pxd.
