# C types for command_table.py; the rules are in input_buffer.pxd.

cimport cython

from fastlisten cimport _mail_syntax as syntax
from fastlisten.handlers.smtp.engine.smtp_session cimport Session

cdef dict _KNOWN


@cython.locals(verb=bytes, argument=bytes)
cpdef execute(Session session, dict commands, bytes line)
cpdef carry_out(Session session, command, bytes answer)
