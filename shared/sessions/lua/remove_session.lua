-- remove_session: delete a session. For a while it can be restored; after that, its texts are gone, also those in the jobs of its turns.
-- Uses: session, job
-- Arguments: id, owner, kept_seconds:number
-- Keys: the session with its turns; owner:<owner>:sessions; jobs:ended
-- Returns 1, 0 when the owner has no such session.
-- Promise: a job that has not ended is not touched; it is kept for as short a time once it has. Jobs with webhook deliveries are kept
-- as long as those need them.

if not session_exists(owner, id) then return 0 end
adopt_messages(owner, id)
local key = session_key(owner, id)
for _, turn in ipairs(redis.call('HKEYS', key .. ':tree')) do
  if redis.call('EXISTS', job_key(turn) .. ':deliveries') == 0 then
    redis.call('ZADD', PREFIX .. 'jobs:ended', 'XX', 'LT', digits(now + 1000 * kept_seconds), turn)
  end
end
redis.call('HSET', key, 'bytes', forget_session(owner, redis.sha1hex(id)))
for _, part in ipairs({ '', ':tree', ':turns' }) do
  local deleted = key .. ':deleted' .. part
  redis.call('DEL', deleted)
  if redis.call('EXISTS', key .. part) == 1 then
    redis.call('RENAME', key .. part, deleted)
    redis.call('EXPIRE', deleted, kept_seconds)
  end
end
return 1
