-- cancel: cancel a job at its owner's request.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id, owner
-- Keys: the record and events; the queue; channel worker:<worker>; for a batch the same of its jobs
-- Returns {'cancelled' (it has ended) | 'requested' (it runs, and its worker was notified) | 'ended' | 'missing', its status,
-- queues to wake}.
-- Promise: a queued job never runs afterwards. A job that has ended does not change.

local job = fields(id, 'status', 'owner')
if not job.status or job.owner ~= owner then return { 'missing', '', wakeups } end
if FINAL[job.status] then return { 'ended', job.status, wakeups } end
local result = cancel(id)
return { result, fields(id, 'status').status, wakeups }
