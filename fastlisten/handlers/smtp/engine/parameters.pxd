# C types for parameters.py; the rules are in input_buffer.pxd.

cdef list _split(str text)
cpdef apply_mail_parameters(transaction, str text, bint extended, limits, bint encrypted)
cpdef apply_recipient_parameters(recipient, str text, bint extended, bint smtputf8)
