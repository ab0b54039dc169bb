-- Note with which revision of its embedding model a collection's vectors are made. The first one stays.
--
-- KEYS[1]  eh:collection:<id>   hash: must exist
-- ARGV     revision
--
-- Returns the revision that is noted now, or false when the collection is gone.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local noted = redis.call('HGET', KEYS[1], 'embedding_revision')
if noted and noted ~= '' then
  return noted
end
redis.call('HSET', KEYS[1], 'embedding_revision', ARGV[1])
return ARGV[1]
