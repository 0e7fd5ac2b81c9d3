"""The configuration: from a TOML text to typed, resolved, frozen settings of every listener.

Rules of this package: it imports neither native modules nor a loop, and what it learns of the
machine comes in through `Machine`. Data goes one way: text, document, listeners, `Config`.

    load(path) / loads(text)  ->  Config  ->  ListenerSettings  ->  socket_options(...)
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
