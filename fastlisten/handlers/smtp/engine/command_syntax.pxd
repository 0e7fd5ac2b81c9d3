# C types for command_syntax.py; the rules are in input_buffer.pxd.

cpdef str parse_client_name(bytes argument)
cdef str _decode(bytes argument, str status)
cdef _mailbox(match, bytes argument, str status)
cpdef parse_mail(bytes argument, bint extended, limits, bint encrypted)
cpdef parse_recipient(bytes argument, bint extended, bint smtputf8)
