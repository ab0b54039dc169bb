-- reap: attend to the jobs whose time has come. The janitor's move.
-- ARGV: now, limit, leases ('1' to judge leases, '0' to leave them alone just after an outage of Redis), gap_ms, grace_ms
--       When nobody has called this for gap_ms, leases are left alone for grace_ms; gap_ms '' asks for no such care.
-- Keys: jobs:due; the records and events; the queues; reaping (there while somebody reaps), reaping:resumed
-- Returns {number looked at, ids whose attempt was lost, queues to wake}.
-- Promise: a lapsed lease loses the attempt; a delayed job whose time has come is queued; a job that nobody started in time
-- ends `expired`, one that has outlived its timeout `failed`, a batch that its maker left open is sealed once all its jobs have
-- ended. Safe to run twice and by many at once.

local wakeups, lost, skipped = {}, {}, 0
local judging = ARGV[3] == '1'
if ARGV[4] ~= '' then
  -- What kept every janitor away (a stall, a frozen network, an outage) kept the renewals away too. A janitor cannot tell
  -- by itself: this very call may have been sent before the stall and be carried out after it.
  if redis.call('EXISTS', PREFIX .. 'reaping') == 0 then
    redis.call('SET', PREFIX .. 'reaping:resumed', '1', 'PX', ARGV[5])
  end
  redis.call('SET', PREFIX .. 'reaping', '1', 'PX', ARGV[4])
  judging = judging and redis.call('EXISTS', PREFIX .. 'reaping:resumed') == 0
end
local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'jobs:due', '-inf', now, 'LIMIT', 0, ARGV[2])
for _, id in ipairs(due) do
  local job = get(id, 'status', 'attempt', 'expires_at', 'not_before', 'started_at', 'waiting', 'timeout_at',
    'kind', 'cancel_requested_at')
  if not job[1] or FINAL[job[1]] then
    -- Gone, or ended with a batch that came before it in this very round.
    redis.call('ZREM', PREFIX .. 'jobs:due', id)
  elseif job[8] == 'batch' then
    if job[9] then
      cancel(id, wakeups)
    elseif redis.call('SCARD', job_key(id) .. ':open') > 0 then
      -- It cannot end yet, and its maker may be waiting for these before it adds the next.
      keep_open(id)
    else
      redis.call('HSET', job_key(id), 'sealed', '1')
      redis.call('ZADD', PREFIX .. 'jobs:due', 'inf', id)
      finish_batch_if_done(id, wakeups)
    end
  elseif job[1] == 'in_progress' then
    if judging then
      lost[#lost + 1] = id
      mark_attempt_lost(id, wakeups)
    else
      skipped = skipped + 1
    end
  elseif job[7] and tonumber(job[7]) <= now then
    time_out(id, job[2], wakeups)
  elseif tonumber(job[3]) <= now and not job[5] then
    finish(id, 'expired', job[2], {}, {}, wakeups)
  elseif job[6] == 'retry_at' and tonumber(job[4]) <= now then
    wakeups[#wakeups + 1] = enqueue(id)
  else
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
  end
end
return { #due - skipped, lost, wakeups }
