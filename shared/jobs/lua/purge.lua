-- purge: drop the traces of jobs whose records have outlived their retention, and seats that nobody has taken for a week.
-- ARGV: now, limit (oldest jobs looked at for each owner)
-- Keys: owners, owner:<owner>:jobs, owner:<owner>:deliveries, jobs:dead_letters, seats
-- Returns the number of traces dropped.
-- Promise: a job that still has a record keeps its place.

local dropped = 0
local function sweep(index, records)
  for _, id in ipairs(redis.call('ZRANGE', index, 0, tonumber(ARGV[2]) - 1)) do
    if redis.call('EXISTS', PREFIX .. records .. id) == 0 then dropped = dropped + redis.call('ZREM', index, id) end
  end
end
for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'owners')) do
  sweep(PREFIX .. 'owner:' .. owner .. ':jobs', 'job:')
  sweep(PREFIX .. 'owner:' .. owner .. ':deliveries', 'delivery:')
end
sweep(PREFIX .. 'jobs:dead_letters', 'job:')
local seats = redis.call('HGETALL', PREFIX .. 'assignments')
for i = 1, #seats, 2 do
  if now - cjson.decode(seats[i + 1]).seen_at > 7 * 24 * 3600 * 1000 then
    dropped = dropped + redis.call('HDEL', PREFIX .. 'assignments', seats[i])
  end
end
return dropped
