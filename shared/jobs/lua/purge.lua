-- purge: delete jobs that have outlived their retention or exceed what is kept for their owner, and assignments of workers that were
-- away for a week.
-- Uses: removal, limits
-- Flags: allow-oom
-- Arguments: limit:number, kept_jobs:number, kept_bytes:number
--   limit is the maximum number of jobs that have outlived their retention, of jobs of each owner, and of deliveries that are checked
--   for each owner; the others are limits of owners that have none of their own, 0 for none.
-- Keys: owner_bytes, owner:<owner>:jobs and limits; jobs:ended and everything of those jobs; owners, owner:<owner>:deliveries; assignments
-- Returns the number of jobs that were deleted.
-- Promise: a job that has not ended is not touched.

-- Of an owner's oldest jobs, so many are looked at: some have not ended, and dead letters stay.
local MAX_LOOKED_AT = 5000
local AWAY_MS = 7 * 24 * 3600 * 1000

local outlived = redis.call('ZRANGEBYSCORE', PREFIX .. 'jobs:ended', '-inf', timestamp, 'LIMIT', 0, limit)
for _, id in ipairs(outlived) do
  local owner = fields(id, 'owner').owner
  if owner then remove_job(id, owner) else redis.call('ZREM', PREFIX .. 'jobs:ended', id) end
end
local deleted = #outlived

-- Delete the oldest jobs of an owner that have ended until the owner has no more than is kept. Those that have not ended count too.
local function purge_owner(owner)
  local most_jobs, most_bytes = limit_of(owner, 'kept_jobs', kept_jobs), limit_of(owner, 'kept_bytes', kept_bytes)
  local index = PREFIX .. 'owner:' .. owner .. ':jobs'
  local surplus = redis.call('ZCARD', index) - most_jobs
  local function is_full()
    return surplus > 0 or tonumber(redis.call('HGET', PREFIX .. 'owner_bytes', owner) or 0) > most_bytes
  end
  if not is_full() then return end
  local removed = 0
  for _, id in ipairs(redis.call('ZRANGE', index, 0, MAX_LOOKED_AT - 1)) do
    if removed == limit or not is_full() then return end
    if FINAL[fields(id, 'status').status or 'completed'] and redis.call('ZSCORE', PREFIX .. 'jobs:dead_letters', id) == false then
      remove_job(id, owner)
      surplus, deleted, removed = surplus - 1, deleted + 1, removed + 1
    end
  end
end

-- Records of deliveries expire by themselves.
for _, owner in ipairs(redis.call('SMEMBERS', PREFIX .. 'owners')) do
  purge_owner(owner)
  local index = PREFIX .. 'owner:' .. owner .. ':deliveries'
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    if redis.call('EXISTS', delivery_key(id)) == 0 then redis.call('ZREM', index, id) end
  end
end
for name, text in pairs(as_table(redis.call('HGETALL', PREFIX .. 'assignments'))) do
  if now - cjson.decode(text).seen_at > AWAY_MS then redis.call('HDEL', PREFIX .. 'assignments', name) end
end
return deleted
