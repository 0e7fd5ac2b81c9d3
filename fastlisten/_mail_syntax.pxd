# What mail protocols look for in octets: signatures.

cpdef bytes part(bytes data, Py_ssize_t start, Py_ssize_t stop)
cpdef Py_ssize_t line_end(bytes data, Py_ssize_t start, Py_ssize_t most) except -2
cpdef tuple split_command(bytes line)
cpdef (Py_ssize_t, bint, bint, bint) find_end(bytes data, Py_ssize_t start) except *
cpdef bint has_bare_break(bytes data, Py_ssize_t start) except -1
cpdef bint is_plain_name(bytes data) except -1
cpdef (Py_ssize_t, Py_ssize_t, Py_ssize_t) plain_path(bytes data, bytes keyword) except *
