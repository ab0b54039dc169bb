-- Records of documents and collections.
-- Uses: core
--
-- Keys: shared/documents/keys.py lists them.

-- Statuses of a document whose job has not reported a final one.
local IN_PROGRESS = { uploaded = true, parsing = true, chunking = true, embedding = true, indexing = true }

-- Documents that are hidden and can be restored, by the time in milliseconds until which that is so.
local DELETED_DOCUMENTS = PREFIX .. 'document:deleted'

-- The same for collections.
local DELETED_COLLECTIONS = PREFIX .. 'collection:deleted'

local function document_key(id) return PREFIX .. 'document:' .. id end

local function collection_key(id) return PREFIX .. 'collection:' .. id end

local function document_fields(id, ...) return hash_fields(document_key(id), ...) end

local function collection_exists(id) return redis.call('EXISTS', collection_key(id)) == 1 end

-- Whether an attempt may write a document: 'ok', 'gone' (deleted) or 'stale' (another job or a later attempt has it).
local function check_document_fence(document, job, attempt)
  if not document.job_id then return 'gone' end
  if document.job_id ~= job or tonumber(document.attempt) > tonumber(attempt) then return 'stale' end
  return 'ok'
end

-- The documents of a collection with one status, sorted by id, without those that are hidden.
local function status_key(collection, status) return collection_key(collection) .. ':status:' .. status end

-- Move a document of a collection from those with one status to those with another; either may be nil.
local function index_status(id, collection, before, after)
  if before == after then return end
  if before then redis.call('ZREM', status_key(collection, before), id) end
  if after then redis.call('ZADD', status_key(collection, after), 0, id) end
end

-- Enter a document that is being given another status among those with that one. Call it before the write.
local function index_new_status(id, after)
  local document = document_fields(id, 'status', 'collection_id', 'delete_at')
  if document.collection_id and not document.delete_at then index_status(id, document.collection_id, document.status, after) end
end

-- Another document than this one, in progress or ready, that stands for a field of an index of the collection; else nil.
local function other_holder(id, collection, index, field)
  local other = redis.call('HGET', collection_key(collection) .. ':' .. index, field)
  local status = other and other ~= id and document_fields(other, 'status').status
  if status == 'ready' or IN_PROGRESS[status] then return other end
end

-- Count a document that ends, and the pages that were read since the last write.
local function count_document(id, changes)
  local before = document_fields(id, 'status', 'pages_done')
  local pages = tonumber(changes.pages_done or 0) - tonumber(before.pages_done or 0)
  if pages > 0 then note(counted_times(digits(pages), 'pages read')) end
  if IN_PROGRESS[before.status] and changes.status and not IN_PROGRESS[changes.status] then count('documents', changes.status) end
end

local function write_document_as(id, attempt, changes)
  count_document(id, changes)
  if changes.status then index_new_status(id, changes.status) end
  redis.call('HSET', document_key(id), 'attempt', attempt, 'updated_at', timestamp)
  set_fields(document_key(id), changes)
end

-- Let neither the name, the bytes, the text nor the file of /v1/files of a document stand for it any longer.
local function forget_names(id, collection)
  local document, key = document_fields(id, 'sha256', 'name', 'file_id', 'text_sha256'), collection_key(collection)
  local indexes = { sha256 = document.sha256, latest = document.name, current = document.name, files = document.file_id,
    texts = document.text_sha256 }
  for index, field in pairs(indexes) do
    if field and redis.call('HGET', key .. ':' .. index, field) == id then redis.call('HDEL', key .. ':' .. index, field) end
  end
end

-- The version of a document that gets a name in a collection in which no other one is found by it.
local function next_version(collection, name)
  local latest = redis.call('HGET', collection_key(collection) .. ':latest', name)
  return (latest and tonumber(document_fields(latest, 'version').version) or 0) + 1
end

-- The hidden collections of an owner by name: the last one of each name.
local function deleted_names_key(owner) return DELETED_COLLECTIONS .. ':' .. owner end

-- Let the name of a collection stand for it no longer.
local function forget_collection_name(id, owner, name)
  local names = PREFIX .. 'collections:' .. owner
  if redis.call('HGET', names, name) == id then redis.call('HDEL', names, name) end
end

-- Let a collection no longer be one that can be restored.
local function forget_deletion(id, owner, name)
  local names = deleted_names_key(owner)
  if redis.call('HGET', names, name) == id then redis.call('HDEL', names, name) end
  redis.call('ZREM', DELETED_COLLECTIONS, id)
end

-- Return a document, whose move has ended before it was indexed, to the collection that it came from, as it was. Returns nil, or why it
-- stays where it is.
local function undo_move(id)
  local document = document_fields(id, 'moved_from', 'before_move', 'collection_id', 'delete_at', 'status', 'name', 'sha256', 'file_id',
    'text_sha256')
  local source, before = document.moved_from, cjson.decode(document.before_move)
  local from, to = collection_key(document.collection_id), collection_key(source)
  if document.delete_at then return 'it is being deleted' end
  if not collection_exists(source) or redis.call('HEXISTS', to, 'delete_at') == 1 then return 'its collection was deleted' end
  local collection = hash_fields(to, 'name', 'index', 'next_index')
  if before.status == 'ready' and ((collection.index or '') ~= before.index or (collection.next_index or '') ~= '') then
    return 'its collection, ' .. collection.name .. ', was or is being reindexed without it'
  end
  local indexes = { sha256 = document.sha256, latest = document.name, current = document.name, files = document.file_id or nil }
  for index, field in pairs(indexes) do
    local other = other_holder(id, source, index, field)
    if other then return 'document ' .. other .. ' of its collection, ' .. collection.name .. ', has its name or its bytes' end
  end
  forget_names(id, document.collection_id)
  redis.call('ZREM', from .. ':documents', id)
  index_status(id, document.collection_id, document.status, nil)
  redis.call('ZADD', to .. ':documents', 0, id)
  index_status(id, source, nil, before.status)
  if before.status ~= 'ready' then indexes.current = nil end
  indexes.latest = nil
  for index, field in pairs(indexes) do redis.call('HSET', to .. ':' .. index, field, id) end
  redis.call('HSETNX', to .. ':latest', document.name, id)
  if before.status == 'ready' and document.text_sha256 then redis.call('HSETNX', to .. ':texts', document.text_sha256, id) end
  redis.call('HSET', document_key(id), 'collection_id', source, 'collection', collection.name, 'status', before.status,
    'reason', before.reason, 'version', before.version, 'replaces', before.replaces, 'same_text_as', before.same_text_as,
    'job_id', before.job_id, 'attempt', before.attempt, 'moved_from', document.collection_id, 'updated_at', timestamp)
  redis.call('HDEL', document_key(id), 'before_move')
end

-- Fail a document whose job has ended without reporting a final status; one that it was moving returns to its collection.
local function fail_document(id, job, reason)
  local document = document_fields(id, 'job_id', 'status', 'before_move')
  if document.job_id ~= job or not IN_PROGRESS[document.status] then return end
  if is_set(document.before_move) then
    local problem = undo_move(id)
    if not problem then return end
    reason = reason .. ' It cannot return from its move, as ' .. problem .. ': retry the job, or move it.'
  end
  index_new_status(id, 'failed')
  redis.call('HSET', document_key(id), 'status', 'failed', 'reason', reason, 'updated_at', timestamp)
  count('documents failed')
end

-- Give a document to the job that retries its ingest, unless it has become ready or was deleted.
local function reassign_document(id, job)
  local status = document_fields(id, 'status').status
  if not status or status == 'ready' then return end
  index_new_status(id, 'uploaded')
  redis.call('HSET', document_key(id), 'job_id', job, 'attempt', 0, 'status', 'uploaded', 'reason', '',
    'updated_at', timestamp)
end

local function stored_key(owner) return PREFIX .. 'owner:' .. owner .. ':stored' end

-- How many documents an owner has, and how many bytes in their files and in those of /v1/files.
local function stored_by(owner)
  local stored = hash_fields(stored_key(owner), 'documents', 'bytes')
  return { documents = tonumber(stored.documents or 0), bytes = tonumber(stored.bytes or 0) }
end

-- Count a change to the set of documents. The data folder has the count too, so that an older Redis is recognised beside it.
local function count_change() redis.call('HINCRBY', PREFIX .. 'data', 'changes', 1) end

-- Add to what an owner has stored. `changes` are numbers of documents, files and bytes.
local function change_stored(owner, changes)
  for name, change in pairs(changes) do redis.call('HINCRBY', stored_key(owner), name, change) end
  local stored = hash_fields(stored_key(owner), 'documents', 'files')
  if tonumber(stored.documents or 0) <= 0 and tonumber(stored.files or 0) <= 0 then redis.call('DEL', stored_key(owner)) end
end
