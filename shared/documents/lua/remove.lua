-- remove: delete the record of a document. The caller deletes its vectors and files.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, collection
-- Keys: document:<id>; collection:<id>:documents, deleted, files, sha256, latest and current; document:deleted; owner:<owner>:stored; data
-- Returns 1, or 0 when it was gone already.
-- Promise: an attempt that still works on the document gets 'gone' from now on, so nothing is written after the caller's deletes.

local document, key = document_fields(id, 'owner', 'size'), collection_key(collection)
forget_names(id, collection)
redis.call('ZREM', key .. ':documents', id)
redis.call('SREM', key .. ':deleted', id)
redis.call('ZREM', DELETED_DOCUMENTS, id)
if document.owner then
  change_stored(document.owner, { documents = -1, bytes = -document.size })
  count_change()
end
return redis.call('DEL', document_key(id))
