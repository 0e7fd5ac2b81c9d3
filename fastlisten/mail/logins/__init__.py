"""Logins: names and passwords are verified at a bounded cost.

logins               the way of an attempt, from the penalty to the result
penalties            addresses that have to wait after failures
login_cache          logins that succeeded within the last hour
verification_queue   threads that verify passwords, and who is next
"""
