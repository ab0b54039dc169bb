"""Compaction items: a summary that stands for everything before it in a conversation.

OpenAI's clients pass an item's ``encrypted_content`` on without reading it. Here it is the summary in JSON and base64, which need not be
secret: it comes from the client's own conversation.
"""

import base64
import binascii
import json
from typing import Any

_VERSION = "eh1."


def compaction_item(id: str, summary: str) -> dict[str, Any]:
    """The item with this summary."""
    content = base64.urlsafe_b64encode(json.dumps({"summary": summary}, ensure_ascii=False).encode()).decode()
    return {"id": id, "type": "compaction", "encrypted_content": f"{_VERSION}{content}"}


def summary_of(encrypted_content: str) -> str | None:
    """The summary of an item, or None if another server has made it."""
    if not encrypted_content.startswith(_VERSION):
        return None
    try:
        content = json.loads(base64.b64decode(encrypted_content.removeprefix(_VERSION), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    summary = content.get("summary") if isinstance(content, dict) else None
    return summary if isinstance(summary, str) else None
