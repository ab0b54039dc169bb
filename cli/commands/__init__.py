"""Subcommands that run and administer a server, by topic. Those that call a server over HTTP are in ``cli.remote``."""
