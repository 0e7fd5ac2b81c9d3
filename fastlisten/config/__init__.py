"""The configuration: from TOML text to the typed, resolved, immutable settings of every listener.

Rules of this package: it imports neither native modules nor an event loop, and learns about the
machine only through `Machine`. Data flows one way: text, document, listeners, `Config`.

    load(path) / loads(text)  ->  Config  ->  ListenerSettings  ->  socket_options(...)

    load              the ways in: a file, a text, the embedded default
    document, lines   a TOML text, the line of each key, and the mistakes found in it
    rows/, values/    the option table, and how the values of its rows are written
    known_protocols   the installed protocols, with their rows
    reader            from one TOML table to typed values
    listener_reader   the same for a listener, with what it inherits
    checks            rules between values that hold for every protocol
    protocol_checks   calls each protocol's own check, through handlers/check_interface.py
    resolve           the order of these steps, from document to Config
    settings          the result: Config, ListenerSettings, Bind
    socket_options    the setsockopt calls that a listener's settings ask for
    unavailable       settings that this version does not support
    export            a Config as TOML or JSON
    document_options  writes docs/configuration.md
"""

from fastlisten.config.load import default_config, load, loads
from fastlisten.config.machine import Machine
from fastlisten.config.settings import Bind, Certificate, Config, ListenerSettings
from fastlisten.config.socket_options import SocketSetting, socket_options
from fastlisten.config.unavailable import find_unavailable
from fastlisten.config.values.network import HostPort, Rate
from fastlisten.config.values.tls import ServerName

__all__ = [
    "Bind",
    "Certificate",
    "Config",
    "HostPort",
    "ListenerSettings",
    "Machine",
    "Rate",
    "ServerName",
    "SocketSetting",
    "default_config",
    "find_unavailable",
    "load",
    "loads",
    "socket_options",
]
