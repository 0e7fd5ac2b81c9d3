"""The option table: one row per configuration key."""
