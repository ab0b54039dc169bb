-- list_conversation_items: a page of the items of a conversation.
-- Uses: conversation
-- Flags: allow-oom
-- Arguments: id, owner, after, limit:number, newest_first
--   after is the last item of the page before, empty for the first page; newest_first is '1' or '0'. A limit of 0 is none.
-- Keys: the conversation
-- Returns {'items', the items in JSON, up to limit and one more}, or {'no_item', {}} if the conversation has no item `after`.

local order, start = conversation_key(id) .. ':order', 0
local is_reversed = newest_first == '1'
if not owns_conversation(id, owner) then return { 'no_item', {} } end
if after ~= '' then
  local rank = redis.call(is_reversed and 'ZREVRANK' or 'ZRANK', order, after)
  if not rank then return { 'no_item', {} } end
  start = rank + 1
end
local ids = redis.call(is_reversed and 'ZREVRANGE' or 'ZRANGE', order, start, limit > 0 and start + limit or -1)
local items = {}
for i, item in ipairs(ids) do items[i] = redis.call('HGET', conversation_key(id) .. ':items', item) end
return { 'items', items }
