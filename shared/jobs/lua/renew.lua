-- renew: extend the leases of the jobs that a worker runs.
-- Uses: attempt
-- Flags: allow-oom
-- Arguments: lease_ms:number, leases[id, attempt]
-- Keys: the records; jobs:due
-- Returns for each lease 'ok' | 'cancel' (held, but a cancel was requested) | 'timeout' (held, but past its timeout) |
-- 'settled' (the attempt itself has ended it) | 'lost' (no longer held: further writes of this attempt are refused).
-- Promise: only the lease of the current attempt is extended. A second call does no harm.

local read_job = field_reader('attempt', 'status', 'cancel_requested_at', 'timeout_at')
local expiry = digits(now + lease_ms)
local results = {}
for i, lease in ipairs(leases) do
  local job = read_job(lease.id)
  if job.attempt ~= lease.attempt or job.status ~= 'in_progress' then
    results[i] = read_attempt(lease.id, lease.attempt).outcome == 'lost' and 'lost' or 'settled'
  else
    redis.call('ZADD', PREFIX .. 'jobs:due', expiry, lease.id)
    redis.call('HSET', job_key(lease.id), 'heartbeat_at', timestamp)
    if is_set(job.cancel_requested_at) then
      results[i] = 'cancel'
    elseif is_set(job.timeout_at) and tonumber(job.timeout_at) <= now then
      results[i] = 'timeout'
    else
      results[i] = 'ok'
    end
  end
end
return results
