-- replace_key: write the record of an API key, unless it has changed since it was read.
-- Uses: core
-- Arguments: digest, before, record
--   before is the record as it was read.
-- Keys: keys
-- Returns 1, or 0 when the record is another one now.

if redis.call('HGET', PREFIX .. 'keys', digest) ~= before then return 0 end
redis.call('HSET', PREFIX .. 'keys', digest, record)
return 1
