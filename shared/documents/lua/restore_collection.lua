-- restore_collection: show a collection again that delete_collection_later has hidden.
-- Uses: document, limits
-- Arguments: id, limit:number
--   limit is that of owners without one of their own.
-- Keys: collection:<id>; collections:<owner>; collection:deleted; collection:deleted:<owner>
-- Returns {'restored'}, also for a collection that is not hidden; {'gone'} when its time is over; {'taken', the collection that has its name
-- since}; or {'limit', how many collections the owner may have}.
-- Promise: its documents are found as before.

local collection = hash_fields(collection_key(id), 'owner', 'name', 'delete_at')
if collection.owner and not collection.delete_at then return { 'restored' } end
if not collection.owner or tonumber(collection.delete_at) <= now then return { 'gone' } end
local names = PREFIX .. 'collections:' .. collection.owner
local other = redis.call('HGET', names, collection.name)
if other then return { 'taken', other } end
local most = limit_of(collection.owner, 'collections', limit)
if redis.call('HLEN', names) >= most then return { 'limit', digits(most) } end
redis.call('HSET', names, collection.name, id)
forget_deletion(id, collection.owner, collection.name)
redis.call('HDEL', collection_key(id), 'delete_at')
return { 'restored' }
