"""The servers that are compared, one small program each.

Rules of this package: all Python candidates of the connection benchmarks serve the same protocol
class (`protocol.py`) under the same conditions (`serve.py`: backlog, address, start and stop), and
differ only in the code that accepts and handles connections. The C candidates are in
``benchmarks/native``.
"""
