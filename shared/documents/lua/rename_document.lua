-- rename_document: give a document another name in its collection.
-- Uses: document
-- Arguments: id, name
-- Keys: document:<id>; collection:<id>:latest and current
-- Returns {'renamed'}, also for a document that has the name already; {'gone'} when it was deleted or is hidden; {'in_progress'} while it is
-- being read or replaced; or {'taken', the document that has the name}.
-- Promise: the document is found by its new name alone. Sent twice, it writes once.

local document = document_fields(id, 'name', 'status', 'collection_id', 'delete_at')
if not document.status or document.delete_at then return { 'gone' } end
if document.name == name then return { 'renamed' } end
if IN_PROGRESS[document.status] or document.status == 'replaced' then return { 'in_progress' } end
local collection = document.collection_id
local other = other_holder(id, collection, 'current', name) or other_holder(id, collection, 'latest', name)
if other then return { 'taken', other } end
local version, key = next_version(collection, name), collection_key(collection)
for _, index in ipairs({ 'latest', 'current' }) do
  if redis.call('HGET', key .. ':' .. index, document.name) == id then redis.call('HDEL', key .. ':' .. index, document.name) end
end
redis.call('HSET', key .. ':latest', name, id)
if document.status == 'ready' then redis.call('HSET', key .. ':current', name, id) end
redis.call('HSET', document_key(id), 'name', name, 'version', version, 'updated_at', timestamp)
return { 'renamed' }
