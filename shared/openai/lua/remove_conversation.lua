-- remove_conversation: delete a conversation with its items.
-- Uses: conversation
-- Flags: allow-oom
-- Arguments: id, owner
-- Keys: the conversation; owner:<owner>:conversations and conversation_bytes
-- Returns 1, or 0 if the owner has no such conversation.

if not owns_conversation(id, owner) then return 0 end
local key = conversation_key(id)
forget_conversation(id, owner)
redis.call('DEL', key, key .. ':items', key .. ':order', key .. ':pending')
return 1
