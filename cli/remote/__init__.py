"""Commands that call a server over HTTP. They reach it through ``enginehouse_client`` only, and work from any machine."""
