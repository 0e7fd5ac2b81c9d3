# C types for command_syntax.py; the rules are in input_buffer.pxd.

cimport cython

from fastlisten cimport _mail_syntax as syntax
from fastlisten.handlers.smtp.engine cimport parameters

cdef bytes _FROM
cdef bytes _TO

cpdef str parse_client_name(bytes argument)
cdef str _decode(bytes argument, str status)
cdef _mailbox(match, bytes argument, str status)
cdef str _plain(bytes argument, Py_ssize_t begin, Py_ssize_t end)


@cython.locals(begin=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, sender=str, rest=str, text=str)
cpdef parse_mail(bytes argument, bint extended, limits, bint encrypted)


@cython.locals(begin=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, address=str, rest=str, text=str)
cpdef parse_recipient(bytes argument, bint extended, bint smtputf8)
