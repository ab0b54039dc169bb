-- restore: show a document again that delete_later has hidden.
-- Uses: document
-- Arguments: id, collection
-- Keys: document:<id>; collection:<id> with its deleted, status, files, sha256, latest and current; document:deleted; data
-- Returns {'restored'}, also for a document that is not hidden; {'gone'} when its time is over; or {'taken', the document that has its name or
-- its bytes since}.
-- Promise: a document that is restored is found by its name and its bytes as before.

local document = document_fields(id, 'delete_at', 'sha256', 'name', 'status', 'file_id')
if document.status and not document.delete_at then return { 'restored' } end
if not document.status or tonumber(document.delete_at) <= now or not collection_exists(collection) then return { 'gone' } end
local key = collection_key(collection)
local indexes = { sha256 = document.sha256, latest = document.name, files = document.file_id or nil }
if document.status == 'ready' then indexes.current = document.name end
for index, field in pairs(indexes) do
  local other = other_holder(id, collection, index, field)
  if other then return { 'taken', other } end
end
indexes.latest = nil
for index, field in pairs(indexes) do redis.call('HSET', key .. ':' .. index, field, id) end
redis.call('HSETNX', key .. ':latest', document.name, id)
redis.call('HDEL', document_key(id), 'delete_at')
index_status(id, collection, nil, document.status)
redis.call('SREM', key .. ':deleted', id)
redis.call('ZREM', DELETED_DOCUMENTS, id)
count_change()
return { 'restored' }
