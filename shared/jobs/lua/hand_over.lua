-- hand_over: return an unfinished job to a queue: that of its next phase, or its own queue when its worker stops.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: id, attempt, outcome, queue, context
--   outcome is 'handed_over' | 'released'; context is JSON, empty to keep the present one.
-- Keys: the record, input and events; the worker's jobs; the queue
-- Returns {'ok' | 'lost', queues to wake}.
-- Promise: it costs the job neither a lost attempt nor a retry. Sent twice by the same attempt, it moves the job once.

local ended = outcome_of(id, attempt)
if ended then return { ended == outcome and 'ok' or 'lost', wakeups } end
local job = fields(id, 'worker', 'owner', 'cancel_requested_at')
close_attempt(id, attempt, outcome)
release_from_worker(id, job.worker)
if context ~= '' then write_input(id, job.owner, 'context', context) end
redis.call('HSET', job_key(id), 'queue', queue)
if is_set(job.cancel_requested_at) then
  finish(id, 'cancelled', attempt)
else
  requeue(id, attempt, 0, outcome)
end
return { 'ok', wakeups }
