-- make_ready: make a document searchable in place of the one that was ready under its name. Searches switch from the old
-- version to the new one at this moment.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, collection, job, attempt, changes{}
-- Keys: counts; document:<id>; collection:<id>:status, current, sha256 and texts; the documents that are replaced, or have the same text
-- Returns 'ok'; 'replaced' when a newer version is ready already, so that this one can never be searched; 'gone' when the
-- document was deleted; 'stale' when another job or a later attempt has it, or when
-- it is hidden until it is deleted.
-- Promise: the field `replaces` names the document that this one replaces, if there is one, and `same_text_as` a ready one whose text, by
-- changes.text_sha256, is the same. Sent twice, it returns the same and writes the
-- same fields again.

local document = document_fields(id, 'job_id', 'attempt', 'name', 'version', 'delete_at')
local result = check_document_fence(document, job, attempt)
if result ~= 'ok' then return result end
-- Its job is being cancelled. It must not take the name of a document that was uploaded since.
if document.delete_at then return 'stale' end
local current_key, digests_key = collection_key(collection) .. ':current', collection_key(collection) .. ':sha256'
local current = redis.call('HGET', current_key, document.name)
if current ~= id then changes.replaces = '' end
if current and current ~= id then
  local other = document_fields(current, 'status', 'version', 'sha256')
  if other.status == 'ready' then
    if tonumber(other.version or 1) > tonumber(document.version or 1) then
      changes.status, changes.reason = 'replaced', 'A newer version, ' .. current .. ', became ready first.'
      write_document_as(id, attempt, changes)
      return 'replaced'
    end
    index_new_status(current, 'replaced')
    redis.call('HSET', document_key(current), 'status', 'replaced', 'reason', 'It was replaced by ' .. id .. '.',
      'updated_at', timestamp)
    if redis.call('HGET', digests_key, other.sha256) == current then redis.call('HDEL', digests_key, other.sha256) end
    changes.replaces = current
  end
end
local texts_key, digest = collection_key(collection) .. ':texts', changes.text_sha256
if digest then
  local same = redis.call('HGET', texts_key, digest)
  local other = same and same ~= id and document_fields(same, 'status', 'delete_at') or {}
  changes.same_text_as = other.status == 'ready' and not other.delete_at and same or ''
  if changes.same_text_as == '' then redis.call('HSET', texts_key, digest, id) end
end
redis.call('HSET', current_key, document.name, id)
write_document_as(id, attempt, changes)
redis.call('HDEL', document_key(id), 'before_move')
return 'ok'
