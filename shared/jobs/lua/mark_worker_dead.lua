-- abandon: a worker is known to be dead; its jobs need not wait for their leases to lapse.
-- ARGV: now, worker
-- Keys: worker:<worker>:jobs; the records and events; workers
-- Returns {ids whose attempt was lost, queues to wake}.
-- Promise: only attempts that this worker has_running_jobs are lost; calling it again finds nothing.

local worker, wakeups, lost = ARGV[2], {}, {}
local held = redis.call('SMEMBERS', PREFIX .. 'worker:' .. worker .. ':jobs')
table.sort(held)
for _, id in ipairs(held) do
  local job = get(id, 'status', 'worker')
  if job[1] == 'in_progress' and job[2] == worker then
    lost[#lost + 1] = id
    mark_attempt_lost(id, wakeups)
  else
    release_from_worker(id, worker)
  end
end
redis.call('HDEL', PREFIX .. 'workers', worker)
return { lost, wakeups }
