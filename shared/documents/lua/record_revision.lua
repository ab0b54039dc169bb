-- record_revision: record the revision of the embedding model that a collection's vectors are made with. The first one stays.
-- Uses: document
-- Flags: allow-oom
-- Arguments: collection, revision
-- Keys: collection:<id>
-- Returns the recorded revision, or false when the collection is gone.

if not collection_exists(collection) then return false end
local recorded = hash_fields(collection_key(collection), 'embedding_revision').embedding_revision
if is_set(recorded) then return recorded end
redis.call('HSET', collection_key(collection), 'embedding_revision', revision)
return revision
