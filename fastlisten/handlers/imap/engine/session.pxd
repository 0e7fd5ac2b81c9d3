# C types for session.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.imap.engine.input_buffer cimport InputBuffer
from fastlisten.handlers.imap.engine.scanner cimport Literal

cdef object _COMMAND
cdef object _SWALLOW
cdef object _TLS
cdef object _END


cdef class Session:
    cdef object _append
    cdef Py_ssize_t _bad
    cdef readonly bytearray _command
    cdef readonly InputBuffer _input
    cdef object _left
    cdef object _limits
    cdef Literal _literal
    cdef object _reading
    cdef bint _said_goodbye
    cdef object _swallowed
    cdef readonly list _unsent
    cdef object _waiting
    cdef public bint condstore
    cdef public object enabled
    cdef public bint encrypted
    cdef public str name
    cdef public object state
    cdef public bytes tag

    cdef _name(self, bytes line)
    cdef _forget_command(self)
    cpdef _refuse(self, error, Literal literal=*)
    cdef _count_bad(self)
    cpdef _hang_up(self, str text, bytes code=*)
    cdef _end(self)
    cdef Py_ssize_t _most(self) except -1
    cdef _begin_swallowing(self, Literal literal)
