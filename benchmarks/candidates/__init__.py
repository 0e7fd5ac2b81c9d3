"""The servers that are compared, one small program each.

Rules of this package: all Python candidates serve the same protocol class (`protocol.py`) on the
same terms (`serve.py`: backlog, address, how to start and stop) and differ only in who accepts and
carries the connections. The C candidate is ``benchmarks/native/epoll_server.c``.
"""
