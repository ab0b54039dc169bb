-- remove_file: delete the record of a file. The caller deletes its bytes.
-- Uses: document
-- Flags: allow-oom
-- Arguments: id
-- Keys: file:<id>; owner:<owner>:files and stored; files:expiring
-- Returns 1, or 0 when it was gone already.

local key = PREFIX .. 'file:' .. id
local file = hash_fields(key, 'owner', 'bytes')
redis.call('ZREM', PREFIX .. 'files:expiring', id)
if not file.owner then return 0 end
redis.call('ZREM', PREFIX .. 'owner:' .. file.owner .. ':files', id)
change_stored(file.owner, { files = -1, bytes = -file.bytes })
return redis.call('DEL', key)
