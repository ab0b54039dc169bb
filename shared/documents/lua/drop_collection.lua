-- Take a collection out of sight: its name is free, it can no longer be found, and no document can enter it.
--
-- KEYS[1]  eh:collections:<owner>   hash: name -> collection id
-- KEYS[2]  eh:collection:<id>       hash: the collection
-- ARGV     collection id, name
--
-- Returns 1, or 0 when it was gone already. Its documents stay listed under the id, for the job that removes them.
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[1] then
  redis.call('HDEL', KEYS[1], ARGV[2])
end
return redis.call('DEL', KEYS[2])
