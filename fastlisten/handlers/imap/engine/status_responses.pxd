# C types for status_responses.py: none, it is only compiled; the rules are in input_buffer.pxd.
