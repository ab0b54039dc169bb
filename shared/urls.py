"""Addresses of servers, which may contain a user and a password."""

from urllib.parse import urlsplit


def without_login(url: str) -> str:
    """The URL without user and password, for messages."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
