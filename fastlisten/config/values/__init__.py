"""The kinds of values: how each is parsed from TOML and written back."""
