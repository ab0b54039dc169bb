-- Forget the next index of a collection.
--
-- KEYS[1]  eh:collection:<id>   hash: the collection
-- ARGV     name of the next index
--
-- Returns 1, or 0 when the collection is gone, answers from that index, or has another next one.
if redis.call('HGET', KEYS[1], 'next_index') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'next_index', '', 'reindex_job', '')
return 1
