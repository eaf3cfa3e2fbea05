"""A port for a server of a test."""

import socket


def free_port():
  with socket.socket() as chosen:
    chosen.bind(('127.0.0.1', 0))
    return chosen.getsockname()[1]
