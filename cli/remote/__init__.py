"""Commands that call a server over HTTP. They use ``enginehouse_client`` only, and work from any machine."""
