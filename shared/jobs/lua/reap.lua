-- reap: act on the jobs whose due time has come.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: limit, leases, gap_ms, grace_ms
--   leases is '1' to end lapsed leases and '0' to leave them alone, just after an outage of Redis. When there was no call for
--   gap_ms, leases are left alone for grace_ms; an empty gap_ms switches this off.
-- Keys: jobs:due; the records and events; the queues; reaping (present while there are calls), reaping:resumed
-- Returns {number of jobs acted on, ids of jobs whose attempt was lost, queues to wake, 1 if a job can be claimed from any queue else 0}.
-- Promise: a lapsed lease loses the attempt. A delayed job whose time has come is queued. A job that did not start in time
-- becomes `expired`, one that has exceeded its timeout `failed`. An open batch is sealed once all its jobs have ended. It is
-- safe to run twice and by many callers at once.

local lost, skipped = {}, 0
local ends_leases = leases == '1'
if gap_ms ~= '' then
  -- An interruption that stopped every caller (a stall, a frozen network, an outage) stopped the renewals too. A caller cannot
  -- detect it: this very call may have been sent before the stall and be executed after it.
  if redis.call('EXISTS', PREFIX .. 'reaping') == 0 then
    redis.call('SET', PREFIX .. 'reaping:resumed', '1', 'PX', grace_ms)
  end
  redis.call('SET', PREFIX .. 'reaping', '1', 'PX', gap_ms)
  ends_leases = ends_leases and redis.call('EXISTS', PREFIX .. 'reaping:resumed') == 0
end

local function reap_batch(id, cancel_requested)
  if cancel_requested then
    cancel(id)
  elseif redis.call('SCARD', job_key(id) .. ':open') > 0 then
    -- It cannot end yet, and its client may be waiting for these jobs before it adds the next.
    keep_open(id)
  else
    seal(id)
  end
end

local due = redis.call('ZRANGEBYSCORE', PREFIX .. 'jobs:due', '-inf', now, 'LIMIT', 0, limit)
for _, id in ipairs(due) do
  local job = fields(id, 'status', 'attempt', 'expires_at', 'not_before', 'started_at', 'waiting', 'timeout_at',
    'kind', 'cancel_requested_at', 'owner', 'concurrency_key')
  if not job.status or FINAL[job.status] then
    -- Deleted, or ended in this round together with a batch that came before it.
    redis.call('ZREM', PREFIX .. 'jobs:due', id)
  elseif job.kind == 'batch' then
    reap_batch(id, job.cancel_requested_at)
  elseif job.status == 'in_progress' then
    if ends_leases then
      lost[#lost + 1] = id
      mark_attempt_lost(id)
    else
      skipped = skipped + 1
    end
  elseif job.timeout_at and tonumber(job.timeout_at) <= now then
    time_out(id, job.attempt)
  elseif tonumber(job.expires_at) <= now and not job.started_at then
    finish(id, 'expired', job.attempt)
  elseif job.waiting == 'retry_at' and tonumber(job.not_before) <= now then
    enqueue(id)
  elseif job.waiting == 'concurrency' then
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
    concurrency.recount(job.owner, job.concurrency_key)
  else
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
  end
end

local owners = {}
for i, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do owners[i] = queue_key(queue, 'owners') end
local jobs_wait = #owners > 0 and redis.call('EXISTS', unpack(owners)) > 0
return { #due - skipped, lost, wakeups, jobs_wait and 1 or 0 }
