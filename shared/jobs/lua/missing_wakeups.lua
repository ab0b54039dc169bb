-- shortage: how many tickets each queue lacks.
-- ARGV: now, interval_ms
-- Keys: queues and their owners and jobs; the Celery list of the same name; wakeup_sent:<q>
-- Returns a flat list of queue and number of missing tickets.
-- Promise: a queue is answered for at most once in interval_ms whoever asks, so many janitors issue no more than one.

local result = {}
for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do
  local missing = queue_length(queue) - redis.call('LLEN', queue)
  if missing > 0 and redis.call('SET', PREFIX .. 'wakeup_sent:' .. queue, '1', 'NX', 'PX', ARGV[2]) then
    result[#result + 1] = queue
    result[#result + 1] = missing
  end
end
return result
