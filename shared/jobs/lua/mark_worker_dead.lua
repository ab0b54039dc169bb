-- mark_worker_dead: return the jobs of a dead worker to their queues before their leases lapse.
-- Uses: transition
-- Flags: allow-oom
-- Arguments: worker
-- Keys: worker:<worker>:jobs and owners; the records and events; workers
-- Returns {ids of jobs whose attempt was lost, queues to wake}.
-- Promise: it ends only attempts of this worker. A second call finds nothing.

local lost = {}
local held = redis.call('SMEMBERS', PREFIX .. 'worker:' .. worker .. ':jobs')
table.sort(held)
for _, id in ipairs(held) do
  local job = fields(id, 'status', 'worker')
  if job.status == 'in_progress' and job.worker == worker then
    lost[#lost + 1] = id
    mark_attempt_lost(id)
  else
    release_from_worker(id, worker, fields(id, unpack(RELEASE_FIELDS)))
  end
end
-- A record that was deleted by hand leaves its owner's count too high.
redis.call('DEL', worker_owners_key(worker))
redis.call('HDEL', PREFIX .. 'workers', worker)
return { lost, wakeups }
