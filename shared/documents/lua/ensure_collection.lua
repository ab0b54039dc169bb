-- ensure_collection: find the owner's collection of a name, or create it.
-- Uses: document, limits
-- Arguments: id, owner, name, embedding_model, limit:number, options{}
--   limit is that of owners without one of their own.
-- Keys: collections:<owner>; collection:<new id>, which is written only when the name is new
-- Returns {the id of the collection with this name, ''}, or {'', the limit that a new collection would exceed}.
-- Promise: two callers at once get the same id. Sent twice, it changes nothing more.

local names = PREFIX .. 'collections:' .. owner
local present = redis.call('HGET', names, name)
if present then return { present, '' } end
local most = limit_of(owner, 'collections', limit)
if redis.call('HLEN', names) >= most then return { '', digits(most) } end
redis.call('HSET', names, name, id)
redis.call('HSET', collection_key(id), 'id', id, 'owner', owner, 'name', name, 'embedding_model', embedding_model,
  'index', id, 'created_at', timestamp, 'statuses_indexed', 1)
set_fields(collection_key(id), options)
return { id, '' }
