-- drop_collection: delete the record of a collection, so that its name is free and no document can enter it.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id, owner, name
-- Keys: collections:<owner>; collection:<id>; collection:deleted; collection:deleted:<owner>
-- Returns 1, or 0 when it was gone already.
-- Promise: its documents stay listed under the id, for the job that deletes them.

forget_collection_name(id, owner, name)
forget_deletion(id, owner, name)
return redis.call('DEL', collection_key(id))
