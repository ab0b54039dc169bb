-- Change fields of a collection or of a document that is still there.
--
-- KEYS[1]  eh:collection:<id> or eh:document:<id>   hash: must exist
-- ARGV     field and value pairs
--
-- Returns 1, or 0 when it is gone; then nothing is written.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if #ARGV > 0 then
  redis.call('HSET', KEYS[1], unpack(ARGV))
end
return 1
