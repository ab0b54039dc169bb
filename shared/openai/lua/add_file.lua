-- add_file: record a file of an owner, whose bytes are stored already.
-- Uses: document, limits
-- Arguments: id, byte_limit:number, record{}
--   byte_limit is for owners without a limit of their own, and empty for a file that is added whatever the owner has; record has the
--   fields of the file.
-- Keys: file:<id>; owner:<owner>:files, stored and limits; files:expiring
-- Returns {'added'}, or {'full', the limit that the file would exceed}.
-- Promise: the same id is counted once.

local key = PREFIX .. 'file:' .. id
if redis.call('EXISTS', key) == 1 then return { 'added' } end
if byte_limit then
  local most = limit_of(record.owner, 'stored_bytes', byte_limit)
  if stored_by(record.owner).bytes + record.bytes > most then return { 'full', digits(most) } end
end
redis.call('HSET', key, 'id', id, 'created_at', timestamp)
if is_set(record.expires_ms) then
  local expires_at = digits(now + tonumber(record.expires_ms))
  redis.call('HSET', key, 'expires_at', expires_at)
  redis.call('ZADD', PREFIX .. 'files:expiring', expires_at, id)
end
record.expires_ms = nil
set_fields(key, record)
redis.call('ZADD', PREFIX .. 'owner:' .. record.owner .. ':files', 0, id)
change_stored(record.owner, { files = 1, bytes = record.bytes })
return { 'added' }
