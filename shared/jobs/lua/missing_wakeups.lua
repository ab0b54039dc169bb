-- missing_wakeups: count the wake-ups that each queue lacks.
-- Uses: queue
-- Flags: allow-oom
-- Arguments: interval_ms
-- Keys: queues and their owners and jobs; the Celery list of the same name; wakeup_sent:<q>; paused
-- Returns a flat list of queue and number of missing wake-ups.
-- Promise: each queue is returned at most once in interval_ms, to one caller, so that several callers send no surplus.

local missing = {}
for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do
  local number = queue_length(queue) - redis.call('LLEN', queue)
  -- Nothing can be claimed from a paused queue, so its wake-ups would come back each time.
  if number > 0 and not is_paused('queue', queue) and redis.call('SET', PREFIX .. 'wakeup_sent:' .. queue, '1', 'NX', 'PX', interval_ms) then
    missing[#missing + 1] = queue
    missing[#missing + 1] = number
  end
end
return missing
