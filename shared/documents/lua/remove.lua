-- remove: delete the record of a document. The caller deletes its vectors and files.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, collection
-- Keys: document:<id>; collection:<id>:documents, files, sha256, latest and current; owner:<owner>:stored; data
-- Returns 1, or 0 when it was gone already.
-- Promise: an attempt that still works on the document gets 'gone' from now on, so nothing is written after the caller's deletes.

local document, key = document_fields(id, 'sha256', 'name', 'owner', 'size', 'file_id'), collection_key(collection)
local indexes = { sha256 = document.sha256, latest = document.name, current = document.name, files = document.file_id }
for index, field in pairs(indexes) do
  if field and redis.call('HGET', key .. ':' .. index, field) == id then redis.call('HDEL', key .. ':' .. index, field) end
end
redis.call('ZREM', key .. ':documents', id)
if document.owner then
  change_stored(document.owner, { documents = -1, bytes = -document.size })
  count_change()
end
return redis.call('DEL', document_key(id))
