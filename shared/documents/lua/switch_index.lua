-- Answer from the next index of a collection from now on.
--
-- KEYS[1]  eh:collection:<id>   hash: the collection
-- ARGV     name of the next index, then field and value pairs of what it was made with
--
-- Returns the name of the index that answered until now, '' when this was done before, or false when the collection is gone
-- or its next index is another one.
local id, index, following = unpack(redis.call('HMGET', KEYS[1], 'id', 'index', 'next_index'))
if index == ARGV[1] then
  return ''
end
if following ~= ARGV[1] then
  return false
end
redis.call('HSET', KEYS[1], 'index', ARGV[1], 'next_index', '', 'reindex_job', '', unpack(ARGV, 2))
return index or id
