-- create_conversation: create a conversation of an owner.
-- Uses: conversation, limits
-- Arguments: id, owner, key, ttl_seconds:number, limit:number, metadata
--   limit is how many conversations an owner without a limit of its own may have; it is the limit of chat sessions.
-- Keys: the conversation; owner:<owner>:conversations, conversation_bytes and limits
-- Returns {'created'}, or {'full', the limit that it would exceed}.
-- Promise: conversations of the owner that have expired are forgotten.

for _, expired in ipairs(redis.call('ZRANGEBYSCORE', conversations_key(owner), '-inf', timestamp, 'LIMIT', 0, 1000)) do
  forget_conversation(expired, owner)
end
local most = limit_of(owner, 'sessions', limit)
if redis.call('ZCARD', conversations_key(owner)) >= most then return { 'full', digits(most) } end
redis.call('HSET', conversation_key(id), 'owner', owner, 'key', key, 'created_at', timestamp, 'ttl_seconds', ttl_seconds,
  'metadata', metadata)
renew_conversation(id)
return { 'created' }
