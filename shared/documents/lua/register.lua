-- register: create a document, unless its collection holds the same bytes already or is about to.
-- Uses: document, limits
-- Arguments: id, collection, sha256, name, file, replace:number, document_limit:number, byte_limit:number, record{}
--   file is the file of /v1/files that the document is made from, else empty. A file has one document in a collection, even if another
--   file has the same bytes.
--   replace is 1 if the document may become the next version of another one with its name, else 0; document_limit and byte_limit
--   are for owners without limits of their own; record has further fields of the new document.
-- Keys: collection:<id> with its documents, status, files, sha256, latest and current; document:<new id>; owner:<owner>:stored and limits; data
-- Returns {'registered', the id of the document that holds the bytes, or is made from the file (the new one, or an earlier one that is
-- in progress or ready)}, {'gone'} when the collection is, {'name_taken', the document with the name that may not be replaced}, or
-- {'documents' | 'stored_bytes', the limit that the new document would exceed}.
-- Promise: an earlier document that ended otherwise keeps its record and no longer stands for the bytes. The same holds when a
-- document with other bytes has its name since then; otherwise a former content could not be restored. Sent twice with one id,
-- it returns that id twice and writes once. The field `replaces` names the document that the new one will replace.

if not collection_exists(collection) then return { 'gone' } end
if redis.call('EXISTS', document_key(id)) == 1 then return { 'registered', id } end

local function is_alive(status) return status == 'ready' or IN_PROGRESS[status] end

local key = collection_key(collection)
local latest = redis.call('HGET', key .. ':latest', name)
local before = latest and document_fields(latest, 'status', 'version') or {}
local earlier
if file ~= '' then
  local made = redis.call('HGET', key .. ':files', file)
  if made and is_alive(document_fields(made, 'status').status) then return { 'registered', made } end
else
  earlier = redis.call('HGET', key .. ':sha256', sha256)
end
if earlier then
  local document = document_fields(earlier, 'status', 'name')
  local superseded = document.name == name and latest and latest ~= earlier and is_alive(before.status)
  if is_alive(document.status) and not superseded then return { 'registered', earlier } end
end
local current = redis.call('HGET', key .. ':current', name)
local replaced = ''
if current and document_fields(current, 'status').status == 'ready' then
  replaced = current
elseif latest and is_alive(before.status) then
  replaced = latest
end
if replaced ~= '' and replace == 0 then return { 'name_taken', replaced } end
local stored = stored_by(record.owner)
local most_documents = limit_of(record.owner, 'documents', document_limit)
local most_bytes = limit_of(record.owner, 'stored_bytes', byte_limit)
if stored.documents + 1 > most_documents then return { 'documents', digits(most_documents) } end
if stored.bytes + record.size > most_bytes then return { 'stored_bytes', digits(most_bytes) } end
redis.call('HSET', document_key(id), 'id', id, 'sha256', sha256, 'name', name, 'status', 'uploaded', 'reason', '',
  'attempt', 0, 'pages', 0, 'pages_done', 0, 'chunks', 0, 'version', tonumber(before.version or 0) + 1,
  'replaces', replaced,
  'created_at', timestamp, 'updated_at', timestamp)
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
redis.call('HSET', key .. ':latest', name, id)
return { 'registered', id }
