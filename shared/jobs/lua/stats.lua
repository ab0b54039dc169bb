-- overview: how much there is of everything, and how often what has happened; for metrics.
-- ARGV: now
-- Keys: queues with their owners and jobs, Celery's contains; jobs:due, jobs:dead_letters; workers and their jobs; counts
-- Returns one JSON object: open (jobs that have not ended), dead, running, queues (each with waiting, oldest_ms, tickets),
-- and counts.
-- Promise: it reads and changes nothing; its cost grows with queues, owners and workers, not with jobs.

local told = { open = redis.call('ZCARD', PREFIX .. 'jobs:due'), dead_letters = redis.call('ZCARD', PREFIX .. 'jobs:dead_letters'), running = 0 }

for _, worker in ipairs(redis.call('HKEYS', PREFIX .. 'workers')) do
  told.running = told.running + redis.call('SCARD', PREFIX .. 'worker:' .. worker .. ':jobs')
end

-- A job's score is its priority times this, and the time of its submission.
local PRIORITY = 1e13

told.queues = {}
for _, queue in ipairs(redis.call('SMEMBERS', PREFIX .. 'queues')) do
  local oldest = nil
  for _, owner in ipairs(redis.call('ZRANGE', PREFIX .. 'queue:' .. queue .. ':owners', 0, -1)) do
    local jobs = PREFIX .. 'queue:' .. queue .. ':jobs:' .. owner
    for priority = 0, 9 do
      local first = redis.call('ZRANGEBYSCORE', jobs, priority * PRIORITY, '(' .. digits((priority + 1) * PRIORITY),
        'WITHSCORES', 'LIMIT', 0, 1)
      if first[2] then oldest = math.min(oldest or math.huge, tonumber(first[2]) - priority * PRIORITY) end
    end
  end
  told.queues[queue] = { waiting = queue_length(queue), oldest_ms = oldest and math.max(0, now - oldest) or 0,
    wakeups = redis.call('LLEN', queue) }
end

told.counts = {}
local counts = redis.call('HGETALL', PREFIX .. 'counts')
for i = 1, #counts, 2 do told.counts[counts[i]] = tonumber(counts[i + 1]) end
return cjson.encode(told)
