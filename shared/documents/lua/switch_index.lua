-- switch_index: search a collection in its next index from now on.
-- Uses: document
-- Flags: allow-oom
-- Arguments: collection, next_index, changes{}
--   changes are the settings that the index was built with.
-- Keys: collection:<id>
-- Returns the name of the index that was searched until now, '' when this was done before, or false when the collection is gone
-- or its next index is another one.

local present = hash_fields(collection_key(collection), 'index', 'next_index')
if present.index == next_index then return '' end
if present.next_index ~= next_index then return false end
redis.call('HSET', collection_key(collection), 'index', next_index, 'next_index', '', 'reindex_job', '')
set_fields(collection_key(collection), changes)
return present.index or collection
