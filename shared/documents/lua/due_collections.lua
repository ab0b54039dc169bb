-- due_collections: the collections that can no longer be restored, and whose data is to be deleted.
-- Uses: document
-- Flags: allow-oom
-- Arguments: limit:number, again_ms:number
-- Keys: collection:deleted; collection:<id> of those in it
-- Returns a list of {collection, its owner}.
-- Promise: each is returned again after again_ms, until it is dropped, so that none is left when a job that deletes it is lost.

local due = {}
for _, id in ipairs(redis.call('ZRANGE', DELETED_COLLECTIONS, '-inf', timestamp, 'BYSCORE', 'LIMIT', 0, limit)) do
  local owner = hash_fields(collection_key(id), 'owner').owner
  if owner then
    redis.call('ZADD', DELETED_COLLECTIONS, digits(now + again_ms), id)
    due[#due + 1] = { id, owner }
  else
    redis.call('ZREM', DELETED_COLLECTIONS, id)
  end
end
return due
