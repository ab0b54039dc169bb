-- recover_collection: make the record of a collection again, under its id, if it is gone.
-- Uses: document
-- Arguments: id, owner, name, created_at, fields{}
--   fields are settings of the collection and the index that has its documents.
-- Keys: collections:<owner>; collection:<id>
-- Returns the name that the collection has: another one than `name` when a later collection of the owner took that.
-- Promise: a collection that exists is not changed. Limits of owners do not apply, as the collection was counted before.

if collection_exists(id) then return hash_fields(collection_key(id), 'name').name end
local names, free, number = PREFIX .. 'collections:' .. owner, name, 1
while redis.call('HEXISTS', names, free) == 1 do
  number = number + 1
  free = string.sub(name, 1, 55) .. '-' .. number
end
redis.call('HSET', names, free, id)
redis.call('HSET', collection_key(id), 'id', id, 'owner', owner, 'name', free, 'created_at', created_at)
set_fields(collection_key(id), fields)
return free
