-- create_first_key: write the record of an API key, unless a key was ever created.
-- Uses: core
-- Arguments: digest, record
-- Keys: keys
-- Returns 1, or 0 when there is a key.

if redis.call('EXISTS', PREFIX .. 'keys') == 1 then return 0 end
return redis.call('HSET', PREFIX .. 'keys', digest, record)
