# C types for engine.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.imap.engine.reading cimport InputReader

cdef object _COMMAND
cdef object _MESSAGE
cdef object _RESPONSE
cdef object _IDLE
cdef object _TLS
cdef object _END


cdef class ImapEngine(InputReader):
    cpdef receive(self, bytes data)
    cpdef bytes output(self)
    cpdef send(self, bytes responses)
    cdef _reject(self, bytes condition, str text, bytes code)
    cdef _answered(self)
    cpdef accept(self)
