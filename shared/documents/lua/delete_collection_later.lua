-- delete_collection_later: hide a collection that is to be deleted, so that it can be restored for a while.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, keep_ms:number
-- Keys: collection:<id>; collections:<owner>; collection:deleted; collection:deleted:<owner>
-- Returns the time in milliseconds until which it can be restored, or false if the collection does not exist.
-- Promise: its name is free from now on, while its documents stay as they are. Sent twice, it returns the same time.

local collection = hash_fields(collection_key(id), 'owner', 'name', 'delete_at')
if not collection.owner then return false end
if collection.delete_at then return collection.delete_at end
local delete_at = digits(now + keep_ms)
forget_collection_name(id, collection.owner, collection.name)
redis.call('HSET', collection_key(id), 'delete_at', delete_at)
redis.call('HSET', deleted_names_key(collection.owner), collection.name, id)
redis.call('ZADD', DELETED_COLLECTIONS, delete_at, id)
return delete_at
