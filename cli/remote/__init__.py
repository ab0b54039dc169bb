"""Commands that call a server over HTTP, from anywhere: on ``enginehouse_client`` alone, knowing neither Redis nor the stack."""
