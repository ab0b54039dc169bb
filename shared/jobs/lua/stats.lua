-- stats: read the size of every queue and the event counts, for metrics.
-- Uses: queue
-- Flags: allow-oom
-- Arguments:
-- Keys: queues with their owners and jobs, Celery's lists; jobs:due, jobs:dead_letters, deliveries:pending; workers and their jobs, of cpu workers
--   also the records of those jobs; counts, stats:notes
-- Returns one JSON object: open (jobs that have not ended), dead_letters, oldest_delivery_ms, running, stages (of documents that workers read, by phase), queues (each with waiting, oldest_ms,
-- wakeups), and counts.
-- Promise: it changes no job. Its cost grows with queues, owners and workers, not with jobs.

local stats = {
  open = redis.call('ZCARD', PREFIX .. 'jobs:due'),
  dead_letters = redis.call('ZCARD', PREFIX .. 'jobs:dead_letters'),
  oldest_delivery_ms = 0,
  running = 0,
  stages = {},
  queues = {},
  counts = {},
}

local oldest_delivery = redis.call('ZRANGE', PREFIX .. 'deliveries:pending', 0, 0, 'WITHSCORES')
if oldest_delivery[2] then stats.oldest_delivery_ms = math.max(0, now - tonumber(oldest_delivery[2])) end

local function count_stages(worker)
  for _, id in ipairs(redis.call('SMEMBERS', PREFIX .. 'worker:' .. worker .. ':jobs')) do
    local job = hash_fields(PREFIX .. 'job:' .. id, 'kind', 'phase')
    if job.kind == 'ingest' then stats.stages[job.phase] = (stats.stages[job.phase] or 0) + 1 end
  end
end

for worker, description in pairs(as_table(redis.call('HGETALL', PREFIX .. 'workers'))) do
  stats.running = stats.running + redis.call('SCARD', PREFIX .. 'worker:' .. worker .. ':jobs')
  if cjson.decode(description).pool == 'cpu' then count_stages(worker) end
end

for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do
  local oldest = now
  for _, owner in ipairs(redis.call('ZRANGE', queue_key(queue, 'owners'), 0, -1)) do
    oldest = math.min(oldest, oldest_of(queue, owner))
  end
  stats.queues[queue] = { waiting = queue_length(queue), oldest_ms = now - oldest, wakeups = redis.call('LLEN', queue) }
end

add_up_notes()
for name, number in pairs(as_table(redis.call('HGETALL', PREFIX .. 'counts'))) do stats.counts[name] = tonumber(number) end
return cjson.encode(stats)
