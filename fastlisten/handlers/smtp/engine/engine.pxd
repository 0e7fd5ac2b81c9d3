# C types for engine.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine cimport answers, command_table, message_input
from fastlisten.handlers.smtp.engine.input_buffer cimport InputBuffer
from fastlisten.handlers.smtp.engine.smtp_session cimport Session

cdef object _FLUSH
cdef object _GOODBYE
cdef object _COMMAND
cdef object _CONTENT
cdef object _DISCARD
cdef object _CHUNK
cdef object _SWALLOW
cdef object _DIALOGUE
cdef object _SECURING
cdef object _CLOSING
cdef object _CLOSED


cdef class SmtpEngine:
    cdef InputBuffer _input
    cdef Session _session
    cdef dict _commands

    cpdef receive(self, bytes data)
    cpdef bytes replies(self)
    cpdef next_event(self)
    cdef _next_command(self)
    cpdef accept(self, bytes answer=*)
    cpdef reject(self, bytes answer)
    cpdef challenge(self, bytes data)
    cpdef answer(self, replies)
    cpdef tls_started(self)
    cpdef note(self, bytes answer)
    cpdef list take_refusals(self)
