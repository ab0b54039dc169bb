-- abandon_reindex: drop the next index of a collection.
-- Uses: document
-- Flags: allow-oom
-- Arguments: collection, next_index
-- Keys: collection:<id>
-- Returns 1, or 0 when the collection is gone, is searched in that index, or has another next one.

if hash_fields(collection_key(collection), 'next_index').next_index ~= next_index then return 0 end
redis.call('HSET', collection_key(collection), 'next_index', '', 'reindex_job', '')
return 1
