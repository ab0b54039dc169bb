-- index_jobs: enter jobs into the index that a version without it has written.
-- Uses: job_index, document
-- Flags: allow-oom
-- Arguments: ids...
-- Keys: the records, their input and documents; the owner's indexes
-- Returns the number of jobs that were not in the index, or in the group of another status.
-- Promise: a job that is in the index as its record says does not change, so it may be called at any time and repeated.

-- Texts in a spec cannot contain these, as their quotes are escaped.
local COLLECTION_PATTERNS = { '"collection_id":"(col_%w+)"', '"collection":"(col_%w+)"' }

local function collection_of(id)
  local document = fields(id, 'document').document
  local collection = is_set(document) and document_fields(document, 'collection_id').collection_id
  if collection then return collection end
  local spec = redis.call('HGET', input_key(id), 'spec') or ''
  for _, pattern in ipairs(COLLECTION_PATTERNS) do
    local found = string.match(spec, pattern)
    if found then return found end
  end
end

local changed = 0
for _, id in ipairs(ids) do
  local job = index_fields(id)
  if job.status and not redis.call('ZSCORE', group_key(job.owner, group_of(job, job.status)), id) then
    leave_groups(id, job)
    local collection = not job.collection and collection_of(id)
    if collection then redis.call('HSET', job_key(id), 'collection', collection) end
    add_to_index(id, index_fields(id))
    changed = changed + 1
  end
end
return changed
