-- change_conversation: replace the metadata of a conversation.
-- Uses: conversation
-- Arguments: id, owner, metadata
-- Keys: the conversation
-- Returns 1, or 0 if the owner has no such conversation.

if not owns_conversation(id, owner) then return 0 end
redis.call('HSET', conversation_key(id), 'metadata', metadata)
return 1
