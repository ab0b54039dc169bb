-- purge: delete jobs that have outlived their retention, and assignments of workers that were away for a week.
-- Uses: removal
-- Flags: allow-oom
-- Arguments: limit:number
--   limit is the maximum number of jobs, and of deliveries that are checked for each owner.
-- Keys: jobs:ended and everything of those jobs; owners, owner:<owner>:deliveries; assignments
-- Returns the number of jobs that were deleted.
-- Promise: a job that has not ended is not touched.

local AWAY_MS = 7 * 24 * 3600 * 1000

local outlived = redis.call('ZRANGEBYSCORE', PREFIX .. 'jobs:ended', '-inf', timestamp, 'LIMIT', 0, limit)
for _, id in ipairs(outlived) do
  local owner = fields(id, 'owner').owner
  if owner then remove_job(id, owner) else redis.call('ZREM', PREFIX .. 'jobs:ended', id) end
end
-- Records of deliveries expire by themselves.
for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'owners')) do
  local index = PREFIX .. 'owner:' .. owner .. ':deliveries'
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    if redis.call('EXISTS', delivery_key(id)) == 0 then redis.call('ZREM', index, id) end
  end
end
for name, text in pairs(as_table(redis.call('HGETALL', PREFIX .. 'assignments'))) do
  if now - cjson.decode(text).seen_at > AWAY_MS then redis.call('HDEL', PREFIX .. 'assignments', name) end
end
return #outlived
