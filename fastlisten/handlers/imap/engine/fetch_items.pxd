# C types for fetch_items.py: none, it is only compiled; the rules are in input_buffer.pxd.
