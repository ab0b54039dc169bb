-- delete_later: hide a document that is to be deleted, so that it can be restored for a while.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, collection, keep_ms:number
-- Keys: document:<id>; collection:<id>:deleted, status, sha256, latest and current; document:deleted; data
-- Returns the time in milliseconds until which it can be restored, or false if the document does not exist.
-- Promise: its name and its bytes are free from now on, while its owner's limits still count it. Sent twice, it returns the same time.

local document = document_fields(id, 'id', 'delete_at', 'status', 'collection_id')
if not document.id then return false end
if document.delete_at then return document.delete_at end
-- It may have been moved since the caller read it.
collection = document.collection_id
local delete_at = digits(now + keep_ms)
forget_names(id, collection)
index_status(id, collection, document.status, nil)
redis.call('HSET', document_key(id), 'delete_at', delete_at)
redis.call('SADD', collection_key(collection) .. ':deleted', id)
redis.call('ZADD', DELETED_DOCUMENTS, delete_at, id)
count_change()
return delete_at
