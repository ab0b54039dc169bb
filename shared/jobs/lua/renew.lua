-- renew: keep the leases of all jobs that a worker has_running_jobs.
-- ARGV: now, worker, lease_ms, then job id and attempt in pairs
-- Keys: the records; jobs:due
-- Returns one word a job: 'ok' | 'cancel' (held, but its end is wished) | 'timeout' (held, but out of time) |
-- 'lost' (no longer held: whatever this attempt still writes is refused).
-- Promise: only the current attempt's lease is renewed; calling it twice does no harm.

local lease_ms = tonumber(ARGV[3])
local words = {}
for i = 4, #ARGV, 2 do
  local id = ARGV[i]
  local job = get(id, 'attempt', 'status', 'cancel_requested_at', 'timeout_at')
  if job[1] ~= ARGV[i + 1] or job[2] ~= 'in_progress' then
    words[#words + 1] = 'lost'
  else
    redis.call('ZADD', PREFIX .. 'jobs:due', now + lease_ms, id)
    redis.call('HSET', job_key(id), 'heartbeat_at', digits(now))
    if job[3] and job[3] ~= '' then
      words[#words + 1] = 'cancel'
    elseif job[4] and job[4] ~= '' and tonumber(job[4]) <= now then
      words[#words + 1] = 'timeout'
    else
      words[#words + 1] = 'ok'
    end
  end
end
return words
