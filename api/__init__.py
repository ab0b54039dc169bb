"""HTTP API on Flask. It loads no model, no index and no document parser, so that its processes stay small."""
