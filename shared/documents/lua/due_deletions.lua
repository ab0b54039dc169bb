-- due_deletions: the documents that can no longer be restored, and whose data is to be deleted.
-- Uses: document
-- Flags: allow-oom
-- Arguments: limit:number, again_ms:number
-- Keys: document:deleted; document:<id> of those in it
-- Returns a list of {document, its collection, its owner}.
-- Promise: each is returned again after again_ms, until it is removed, so that none is left when a job that deletes it is lost.

local due = {}
for _, id in ipairs(redis.call('ZRANGE', DELETED_DOCUMENTS, '-inf', timestamp, 'BYSCORE', 'LIMIT', 0, limit)) do
  local document = document_fields(id, 'collection_id', 'owner')
  if document.owner then
    redis.call('ZADD', DELETED_DOCUMENTS, digits(now + again_ms), id)
    due[#due + 1] = { id, document.collection_id, document.owner }
  else
    redis.call('ZREM', DELETED_DOCUMENTS, id)
  end
end
return due
