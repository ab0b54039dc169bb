-- index_statuses: list the documents of a collection by their statuses again, as an older Enginehouse may have written them, a limited
-- number at a time.
-- Uses: document
-- Flags: allow-oom
-- Arguments: collection, after, batch:number, statuses...
--   after is the last document of the call before, or empty, which empties the lists of all `statuses` first.
-- Keys: collection:<id>:documents and status; document:<id> of up to `batch` documents
-- Returns the last document that was entered, or '' when no more follow.
-- Promise: a document that is written meanwhile is entered with its newer status. It can be repeated at any time.

if after == '' then
  for _, status in ipairs(statuses) do redis.call('DEL', status_key(collection, status)) end
end
local first = after == '' and '-' or '(' .. after
local ids = redis.call('ZRANGEBYLEX', collection_key(collection) .. ':documents', first, '+', 'LIMIT', 0, batch)
for _, id in ipairs(ids) do
  local document = document_fields(id, 'status', 'delete_at')
  if document.status and not document.delete_at then index_status(id, collection, nil, document.status) end
end
return #ids == batch and ids[#ids] or ''
