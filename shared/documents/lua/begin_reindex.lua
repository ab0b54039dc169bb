-- Say that a job makes the next index of a collection, so that deletions reach it.
--
-- KEYS[1]  eh:collection:<id>   hash: must exist
-- ARGV     name of the next index, job id
--
-- Returns the name of another next index that is now given up, '' when there was none, or false when the collection is gone.
-- A repeated attempt of the job, whose index has answered already, changes nothing.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local index, before = unpack(redis.call('HMGET', KEYS[1], 'index', 'next_index'))
if index == ARGV[1] then
  return ''
end
redis.call('HSET', KEYS[1], 'next_index', ARGV[1], 'reindex_job', ARGV[2])
return (before and before ~= ARGV[1]) and before or ''
