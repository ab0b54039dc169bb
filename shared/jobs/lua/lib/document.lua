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

-- Count a document that ends, and the pages that were read since the last write.
local function count_document(id, changes)
  local before = document_fields(id, 'status', 'pages_done')
  local pages = tonumber(changes.pages_done or 0) - tonumber(before.pages_done or 0)
  if pages > 0 then add_to_count(pages, 'pages read') end
  if IN_PROGRESS[before.status] and changes.status and not IN_PROGRESS[changes.status] then count('documents', changes.status) end
end

local function write_document_as(id, attempt, changes)
  count_document(id, changes)
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

-- Fail a document whose job has ended without reporting a final status.
local function fail_document(id, job, reason)
  local document = document_fields(id, 'job_id', 'status')
  if document.job_id ~= job or not IN_PROGRESS[document.status] then return end
  redis.call('HSET', document_key(id), 'status', 'failed', 'reason', reason, 'updated_at', timestamp)
  count('documents failed')
end

-- Give a document to the job that retries its ingest, unless it has become ready or was deleted.
local function reassign_document(id, job)
  local status = document_fields(id, 'status').status
  if not status or status == 'ready' then return end
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
