-- move_document: put a document into another collection, where the job that calls this indexes it again.
-- Uses: document
-- Arguments: id, source, target, job, attempt:number
--   source and target are collections of one owner.
-- Keys: document:<id>; collection:<id> of both collections with their documents, status, files, sha256, latest, current and texts
-- Returns {'moved'}, also when an earlier attempt of the job did it; {'gone'} when the document or a collection was deleted or is hidden;
-- {'elsewhere'} when the document is in neither collection, or another job moved it; {'in_progress'} while another job reads it; or {'taken', the document that has
-- its name, its bytes or its file of /v1/files in the target}.
-- Promise: the document is at all times in exactly one collection. Until the job makes it ready, no search finds it. If the job ends
-- before that, `before_move` has what the document was.

local document = document_fields(id, 'status', 'collection_id', 'delete_at', 'name', 'sha256', 'file_id', 'job_id', 'attempt', 'reason',
  'version', 'replaces', 'same_text_as')
if not document.status then return { 'gone' } end
if document.collection_id == target and document.job_id == job then return { 'moved' } end
if document.collection_id ~= source then return { 'elsewhere' } end
if document.delete_at then return { 'gone' } end
if document.status == 'replaced' or (IN_PROGRESS[document.status] and document.job_id ~= job) then return { 'in_progress' } end
for _, collection in ipairs({ source, target }) do
  local key = collection_key(collection)
  if not collection_exists(collection) or redis.call('HEXISTS', key, 'delete_at') == 1 then return { 'gone' } end
end
for index, field in pairs({ sha256 = document.sha256, latest = document.name, current = document.name, files = document.file_id or nil }) do
  local other = other_holder(id, target, index, field)
  if other then return { 'taken', other } end
end
local version, from, to = next_version(target, document.name), collection_key(source), collection_key(target)
forget_names(id, source)
local before = {
  -- Its job is retried, so it is in progress until that ends, and without it, as it was when the earlier job ended.
  status = IN_PROGRESS[document.status] and 'failed' or document.status,
  reason = document.reason or '', version = document.version or 1, replaces = document.replaces or '',
  same_text_as = document.same_text_as or '', job_id = document.job_id, attempt = document.attempt or 0,
  index = redis.call('HGET', from, 'index') or '',
}
redis.call('ZREM', from .. ':documents', id)
index_status(id, source, document.status, nil)
redis.call('HSET', document_key(id), 'collection_id', target, 'collection', redis.call('HGET', to, 'name'), 'version', version,
  'status', 'uploaded', 'reason', '', 'replaces', '', 'same_text_as', '', 'moved_from', source,
  'before_move', cjson.encode(before), 'job_id', job, 'attempt', attempt, 'updated_at', timestamp)
redis.call('ZADD', to .. ':documents', 0, id)
index_status(id, target, nil, 'uploaded')
redis.call('HSET', to .. ':sha256', document.sha256, id)
redis.call('HSET', to .. ':latest', document.name, id)
if document.file_id then redis.call('HSET', to .. ':files', document.file_id, id) end
return { 'moved' }
