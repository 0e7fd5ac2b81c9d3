# C types for parse_messages.py: none, it is only compiled; the rules are in input_buffer.pxd.
