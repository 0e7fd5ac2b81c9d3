"""Logins: passwords verified within bounds, and penalties for addresses that guess."""
