"""The option table: one row per key that may stand in a configuration."""
