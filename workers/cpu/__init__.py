"""CPU pool: parses documents into pages, splits pages into chunks, and embeds and indexes chunks."""
