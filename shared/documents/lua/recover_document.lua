-- recover_document: make the record of a document again, whose folder remains.
-- Uses: document
-- Arguments: id, collection, sha256, name, file, version:number, record{}
--   file is the file of /v1/files that the document was made from, else empty.
--   record has the other fields of the document.
-- Keys: collection:<id> with its documents, status, files, sha256, latest; document:<id>; owner:<owner>:stored; data
-- Returns {'recovered', ''}; {'exists', ''}; {'gone', ''} when there is no such collection; {'duplicate', id} when another document
-- of the collection has the same bytes and is in progress or ready.
-- Promise: sent twice, it writes once. Limits of owners do not apply, as the document was counted before.

if redis.call('EXISTS', document_key(id)) == 1 then return { 'exists', '' } end
if not collection_exists(collection) then return { 'gone', '' } end
local key = collection_key(collection)
local other = redis.call('HGET', key .. ':sha256', sha256)
if other and file == '' then
  local status = document_fields(other, 'status').status
  if status == 'ready' or IN_PROGRESS[status] then return { 'duplicate', other } end
end
redis.call('HSET', document_key(id), 'id', id, 'sha256', sha256, 'name', name, 'version', version, 'status', 'uploaded',
  'reason', '', 'attempt', 0, 'pages', 0, 'pages_done', 0, 'chunks', 0, 'replaces', '', 'updated_at', timestamp)
set_fields(document_key(id), record)
if file ~= '' then
  redis.call('HSET', document_key(id), 'file_id', file)
  redis.call('HSET', key .. ':files', file, id)
end
change_stored(record.owner, { documents = 1, bytes = record.size })
count_change()
redis.call('ZADD', key .. ':documents', 0, id)
index_status(id, collection, nil, 'uploaded')
redis.call('HSET', key .. ':sha256', sha256, id)
local latest = redis.call('HGET', key .. ':latest', name)
if not latest or tonumber(document_fields(latest, 'version').version or 0) <= version then
  redis.call('HSET', key .. ':latest', name, id)
end
return { 'recovered', '' }
