-- remove: delete the record of a document. The caller deletes its vectors and files.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, collection
--   collection is that of the document, if its record is gone.
-- Keys: document:<id>; collection:<id>:documents, status, deleted, files, sha256, latest and current; document:deleted; owner:<owner>:stored; data
-- Returns 1, or 0 when it was gone already.
-- Promise: an attempt that still works on the document gets 'gone' from now on, so nothing is written after the caller's deletes.

local document = document_fields(id, 'owner', 'size', 'status', 'collection_id')
-- It may have been moved since the caller read it.
collection = document.collection_id or collection
local key = collection_key(collection)
forget_names(id, collection)
index_status(id, collection, document.status, nil)
redis.call('ZREM', key .. ':documents', id)
redis.call('SREM', key .. ':deleted', id)
redis.call('ZREM', DELETED_DOCUMENTS, id)
if document.owner then
  change_stored(document.owner, { documents = -1, bytes = -document.size })
  count_change()
end
return redis.call('DEL', document_key(id))
