-- purge: remove index entries of records that have expired, and assignments of workers that were away for a week.
-- Uses: core
-- Arguments: limit:number
--   limit is the number of oldest entries that are checked in each index.
-- Keys: owners, owner:<owner>:jobs, owner:<owner>:deliveries, jobs:dead_letters, assignments
-- Returns the number of entries removed.
-- Promise: a job that still has a record keeps its entries.

local AWAY_MS = 7 * 24 * 3600 * 1000

local removed = 0
local function sweep(index, records)
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    if redis.call('EXISTS', PREFIX .. records .. id) == 0 then removed = removed + redis.call('ZREM', index, id) end
  end
end
for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'owners')) do
  sweep(PREFIX .. 'owner:' .. owner .. ':jobs', 'job:')
  sweep(PREFIX .. 'owner:' .. owner .. ':deliveries', 'delivery:')
end
sweep(PREFIX .. 'jobs:dead_letters', 'job:')
for name, text in pairs(as_table(redis.call('HGETALL', PREFIX .. 'assignments'))) do
  if now - cjson.decode(text).seen_at > AWAY_MS then
    removed = removed + redis.call('HDEL', PREFIX .. 'assignments', name)
  end
end
return removed
