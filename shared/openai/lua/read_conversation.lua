-- read_conversation: read a conversation without its items, and keep it for longer.
-- Uses: conversation
-- Flags: allow-oom
-- Arguments: id, owner
-- Keys: the conversation; owner:<owner>:conversations and conversation_bytes
-- Returns {key, created_at, metadata, bytes, number of items, pending responses}, or false if the owner has no such conversation.

if not owns_conversation(id, owner) then return false end
renew_conversation(id)
local found = hash_fields(conversation_key(id), 'key', 'created_at', 'metadata')
return {
  found.key, found.created_at, found.metadata,
  redis.call('HGET', conversation_bytes_key(owner), id) or 0,
  redis.call('ZCARD', conversation_key(id) .. ':order'),
  redis.call('LRANGE', conversation_key(id) .. ':pending', 0, -1),
}
