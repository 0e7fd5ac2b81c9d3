# C types for scanner.py; the rules are in input_buffer.pxd.

cimport cython

cdef object _ATOM
cdef object _NUMBER

cdef class Literal:
    cdef readonly bint binary
    cdef readonly object size
    cdef readonly bint waits


cdef class Scanner:
    cdef public bytes data
    cdef public Py_ssize_t position

    @cython.locals(data=bytes, position=Py_ssize_t)
    cpdef bint at_end(self) except -1
    cpdef end(self)
    cpdef space(self)
    cpdef bint skip(self, bytes octet) except -1
    cpdef bint next_is(self, bytes octet) except -1
    cpdef bint opens(self) except -1
    cpdef bint closes(self) except -1
    cpdef bint open_list(self) except -1
    cpdef bytes atom(self)
    cpdef bytes word(self)
    cpdef bytes flag(self)
    cdef bytes _match(self, pattern, str otherwise)
    cpdef match(self, pattern)
    cpdef bytes string(self)
    cpdef bytes astring(self)
    cpdef bytes list_mailbox(self)
    cpdef bytes nstring(self)
    cdef bytes _literal(self)
