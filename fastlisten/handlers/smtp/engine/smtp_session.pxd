# C types for smtp_session.py; the rules are in input_buffer.pxd.

from fastlisten.handlers.smtp.engine.chunk_reader cimport ChunkReader
from fastlisten.handlers.smtp.engine.input_buffer cimport InputBuffer

cdef object _COMMAND
cdef object _CLOSING


cdef class Session:
    cdef public bint authenticated
    cdef public bint chunked
    cdef public ChunkReader chunks
    cdef public str client_name
    cdef public bint encrypted
    cdef public Py_ssize_t errors
    cdef public bint extended
    cdef public InputBuffer input
    cdef public object limits
    cdef public bint lmtp
    cdef public bint locked
    cdef public bytes refusal
    cdef public object refusal_about
    cdef public list refusals
    cdef public Py_ssize_t refused
    cdef public Py_ssize_t rejected
    cdef public object size
    cdef public object state
    cdef public Py_ssize_t taken
    cdef public object transaction
    cdef public list unsent
    cdef public bytes verb
    cdef public object waiting

    cpdef enter(self, state)
    cpdef refuse(self, bytes answer, tuple recipients=*, transaction=*, str sender=*)
    cpdef note(self, bytes answer, tuple recipients=*, transaction=*, str sender=*)
    cpdef list take_refusals(self)
    cpdef hang_up(self, bytes answer, tuple recipients=*, transaction=*, str sender=*)
    cpdef out_of_order(self, str first)
    cpdef no_recipients(self)
    cpdef reset(self)
    cpdef bytes for_each(self, bytes answer)
    cpdef take_message(self)
    cpdef forget(self)
