-- remove_conversation_item: delete an item of a conversation.
-- Uses: conversation
-- Flags: allow-oom
-- Arguments: id, owner, item
-- Keys: the conversation; owner:<owner>:conversation_bytes
-- Returns 1, or 0 if the item does not exist.

local key = conversation_key(id)
if not owns_conversation(id, owner) then return 0 end
local bytes = redis.call('HSTRLEN', key .. ':items', item)
if redis.call('HDEL', key .. ':items', item) == 0 then return 0 end
redis.call('ZREM', key .. ':order', item)
add_conversation_bytes(id, owner, -bytes)
return 1
