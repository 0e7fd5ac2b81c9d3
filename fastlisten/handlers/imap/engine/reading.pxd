# C types for reading.py; the rules are in input_buffer.pxd.

cimport cython

from fastlisten.handlers.imap.engine.scanner cimport Literal, Scanner
from fastlisten.handlers.imap.engine.session cimport Session

cdef object _COMMAND
cdef object _LITERAL
cdef object _MESSAGE
cdef object _SWALLOW
cdef object _REST
cdef object _RESPONSE
cdef object _IDLE
cdef object _TLS
cdef object _END


cdef class InputReader(Session):
    cpdef next_event(self)
    cdef bytes _next_line(self, Py_ssize_t limit)

    @cython.locals(command=bytearray, limit=Py_ssize_t, line=bytes, literal=Literal)
    cdef _next_command(self)

    @cython.locals(scanner=Scanner)
    cdef _execute(self, bytes data)
    cdef _check(self, event)
    cdef _check_privacy(self)
    cdef _announced(self, bytes line, Literal literal)
    cdef _begun(self, bytes data, Literal literal)
    cdef _next_octets(self)
    cdef _next_piece(self)
    cdef _after_message(self, bytes line, Literal literal, last)
    cdef _swallow(self)
    cdef _skip_rest(self)
    cdef _next_response(self)
    cdef _next_done(self)
