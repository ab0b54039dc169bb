-- begin_reindex: record that a job builds the next index of a collection, so that deletions reach that index too.
-- Uses: document
-- Arguments: collection, next_index, job
-- Keys: collection:<id>
-- Returns the name of another next index that is dropped for this one, '' when there was none, or false when the collection is gone.
-- Promise: a repeated attempt of the job, whose index is searched already, changes nothing.

if not collection_exists(collection) then return false end
local present = hash_fields(collection_key(collection), 'index', 'next_index')
if present.index == next_index then return '' end
redis.call('HSET', collection_key(collection), 'next_index', next_index, 'reindex_job', job)
return (present.next_index and present.next_index ~= next_index) and present.next_index or ''
