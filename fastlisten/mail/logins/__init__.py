"""Logins: names and passwords are verified at a bounded cost.

logins               the way of an attempt, from the penalty to the result
penalties            addresses that have to wait after failures
failed_names         how often each name failed
login_cache          logins that succeeded within the last hour
sasl                 the mechanisms with which a client gives name and password
verification_queue   threads that verify passwords, and who is next
"""
