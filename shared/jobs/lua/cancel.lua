-- cancel: a client no longer wants a job.
-- ARGV: now, id, owner
-- Keys: the record and events; the queue; channel worker:<worker>; for a batch the same of its jobs
-- Returns {'cancelled' (it is over) | 'requested' (it runs; its worker is told) | 'ended' | 'missing', its status,
-- queues to wake}.
-- Promise: a queued job never runs afterwards; a job that has ended is left as it is.

local id, wakeups = ARGV[2], {}
local job = get(id, 'status', 'owner')
if not job[1] or job[2] ~= ARGV[3] then return { 'missing', '', wakeups } end
if FINAL[job[1]] then return { 'ended', job[1], wakeups } end
local answer = cancel(id, wakeups)
return { answer, redis.call('HGET', job_key(id), 'status'), wakeups }
