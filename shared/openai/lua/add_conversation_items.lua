-- add_conversation_items: add items to the end of a conversation.
-- Uses: conversation
-- Arguments: id, owner, job, bytes_limit:number, items[id, item]
--   job is the response that the items come from, which is pending, or empty. bytes_limit does not apply to the items of a response, which
--   has been accepted already. The item is JSON.
-- Keys: the conversation; owner:<owner>:conversations and conversation_bytes
-- Returns 'added' | 'missing' (the owner has no such conversation) | 'full' (it has bytes_limit or more).
-- Promise: the items of a response are added once. An item that the conversation has already is not added again.

if not owns_conversation(id, owner) then return 'missing' end
if job ~= '' then
  if redis.call('LREM', conversation_key(id) .. ':pending', 1, job) == 0 then return 'added' end
elseif tonumber(redis.call('HGET', conversation_bytes_key(owner), id) or 0) >= bytes_limit then
  return 'full'
end
add_to_conversation(id, owner, items)
renew_conversation(id)
return 'added'
