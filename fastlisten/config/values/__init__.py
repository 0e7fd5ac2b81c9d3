"""The grammar of values: from what TOML gives to a typed value, and back."""
