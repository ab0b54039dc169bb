-- restore_session: take the deletion of a session back.
-- Uses: session, transition
-- Arguments: id, owner, ttl_seconds:number
-- Keys: the session with its turns; owner:<owner>:sessions; jobs:ended
-- Returns 'restored' | 'missing' (it was not deleted, or too long ago) | 'exists' (there is a session with this id).
-- Promise: its jobs that still exist are kept as long from now on as if they had ended now.

local key = session_key(owner, id)
if session_exists(owner, id) then return 'exists' end
if redis.call('EXISTS', key .. ':deleted') == 0 then return 'missing' end
for _, part in ipairs({ '', ':tree', ':turns' }) do
  local deleted = key .. ':deleted' .. part
  if redis.call('EXISTS', deleted) == 1 then redis.call('RENAME', deleted, key .. part) end
end
local turns, last = redis.call('HKEYS', key .. ':tree'), 0
for _, turn in ipairs(turns) do
  local job = fields(turn, 'status', unpack(RETENTION_FIELDS))
  if FINAL[job.status] then
    redis.call('ZADD', PREFIX .. 'jobs:ended', 'XX', 'GT', digits(now + retention(turn, job, job.status, 0)), turn)
  end
  local times = cjson.decode(redis.call('HGET', key .. ':turns', turn .. ':times'))
  last = math.max(last, times.ended_at or times.created_at)
end
add_session_bytes(owner, redis.sha1hex(id), tonumber(redis.call('HGET', key, 'bytes') or 0))
redis.call('HDEL', key, 'bytes')
if #turns > 0 then redis.call('ZADD', updated_key(owner), digits(last), redis.sha1hex(id)) end
renew_session(owner, id, ttl_seconds)
return 'restored'
