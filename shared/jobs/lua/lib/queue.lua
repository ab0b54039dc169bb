-- Queues with fair shares between owners.
-- Uses: job
--
-- Keys:
--   queues                   set     every queue that has ever had a job
--   queue:<q>:owners         zset    owners with a job in this queue -> service received (tokens / weight)
--   queue:<q>:jobs:<owner>   zset    jobs -> priority, then time of submission
--   queue:<q>:service        hash    owner -> service received, also of owners with nothing queued now
--   queue:<q>:level          string  service of the owner that was served last, at the time of that claim
--   queue:<q>:gaps           list    milliseconds between the latest claims while jobs waited, newest first
--   queue:<q>:held           set     workers that hold a free slot back for more urgent jobs
--   queue:<q>:claimed_at     string  time of the latest claim, kept while jobs wait
--   weights                  hash    owner -> weight of its share, where it is not 1
--   paused                   hash    queue:<q> or worker:<name> -> since when an operator lets nothing be claimed there
--   wakeup_sent:<q>          string  present for a moment after missing wake-ups were sent to this queue

local SERVICE_MEMORY_SECONDS = 3600
-- A job's score in its queue is its priority times this, plus the time of its submission.
local PRIORITY_STEP = 1e13
-- Jobs of this priority and of later ones, which nobody waits for, leave some slots of each worker free.
local BATCH_PRIORITY = 8
local HELD_SECONDS = 5

-- Queues in which a job has become claimable; Python sends a wake-up for each.
local wakeups = {}

local function queue_key(queue, part) return PREFIX .. 'queue:' .. queue .. ':' .. part end

local function owner_jobs_key(queue, owner) return queue_key(queue, 'jobs:' .. owner) end

local function held_key(queue) return queue_key(queue, 'held') end

-- Let workers look again that hold a slot back for a job such as this one.
local function notify_held_slots(queue)
  for _, worker in ipairs(redis.call('SMEMBERS', held_key(queue))) do
    redis.call('PUBLISH', PREFIX .. 'worker:' .. worker, cjson.encode({ job_waits = queue }))
  end
  redis.call('DEL', held_key(queue))
end

local function set_service(queue, owner, service)
  local key = queue_key(queue, 'service')
  redis.call('HSET', key, owner, service)
  redis.call('EXPIRE', key, SERVICE_MEMORY_SECONDS)
end

local function add_service(queue, owner, tokens)
  local share = tokens / tonumber(redis.call('HGET', PREFIX .. 'weights', owner) or 1)
  -- XX: an owner with nothing queued must not enter the set that claim chooses from. The set counts for an owner that is in
  -- it: it outlives the hash when there was no claim for long, and an owner whose count restarted would win every turn.
  local total = redis.call('ZADD', queue_key(queue, 'owners'), 'XX', 'INCR', share, owner)
  if total then
    set_service(queue, owner, total)
  else
    redis.call('HINCRBYFLOAT', queue_key(queue, 'service'), owner, share)
    redis.call('EXPIRE', queue_key(queue, 'service'), SERVICE_MEMORY_SECONDS)
  end
end

-- When maintenance must look at a queued job: at its timeout, or before it at the time by which it must have started once.
local function deadline(id)
  local job = fields(id, 'expires_at', 'timeout_at', 'started_at')
  local start_by = job.started_at and math.huge or tonumber(job.expires_at)
  return math.min(start_by, tonumber(job.timeout_at or 'inf'))
end

-- Make a queued job claimable. An owner that is new to the queue starts at the least service among those that wait, or that
-- last waited, so that neither a long absence nor a first job gives it every turn.
local function enqueue(id)
  local job = fields(id, 'queue', 'owner', 'priority', 'created_at')
  local queue, owner = job.queue, job.owner
  local owners = queue_key(queue, 'owners')
  if not redis.call('ZSCORE', owners, owner) then
    local service = tonumber(redis.call('HGET', queue_key(queue, 'service'), owner) or 0)
    local _, least = lowest(owners)
    least = least or redis.call('GET', queue_key(queue, 'level'))
    if least and tonumber(least) > service then
      service = least
      set_service(queue, owner, service)
    end
    redis.call('ZADD', owners, service, owner)
  end
  local score = tonumber(job.priority) * PRIORITY_STEP + tonumber(job.created_at)
  redis.call('ZADD', owner_jobs_key(queue, owner), score, id)
  redis.call('SADD', PREFIX .. 'queues', queue)
  redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
  redis.call('HSET', job_key(id), 'waiting', 'worker')
  if tonumber(job.priority) < BATCH_PRIORITY then notify_held_slots(queue) end
  wakeups[#wakeups + 1] = queue
end

local function dequeue(id, queue, owner)
  local jobs = owner_jobs_key(queue, owner)
  redis.call('ZREM', jobs, id)
  if redis.call('EXISTS', jobs) == 0 then redis.call('ZREM', queue_key(queue, 'owners'), owner) end
end

-- Delay a queued job; reap makes it claimable when its time has come.
local function postpone(id, not_before)
  redis.call('HSET', job_key(id), 'not_before', digits(not_before), 'waiting', 'retry_at')
  redis.call('ZADD', PREFIX .. 'jobs:due', math.min(not_before, deadline(id)), id)
end

-- Make a job claimable at once, or after its delay.
local function make_ready(id)
  local not_before = tonumber(redis.call('HGET', job_key(id), 'not_before') or 0)
  if not_before <= now then enqueue(id) else postpone(id, not_before) end
end

-- Time of submission of the oldest job of an owner: that of the first job of each priority is compared.
local function oldest_of(queue, owner)
  local oldest = math.huge
  for priority = 0, 9 do
    local first = redis.call('ZRANGEBYSCORE', owner_jobs_key(queue, owner), priority * PRIORITY_STEP,
      '(' .. digits((priority + 1) * PRIORITY_STEP), 'WITHSCORES', 'LIMIT', 0, 1)
    if first[2] then oldest = math.min(oldest, tonumber(first[2]) - priority * PRIORITY_STEP) end
  end
  return oldest
end

-- Whether an operator has paused a 'queue' or a 'worker'.
local function is_paused(target, name) return redis.call('HEXISTS', PREFIX .. 'paused', target .. ':' .. name) == 1 end

-- The number of claimable jobs.
local function queue_length(queue)
  local length = 0
  for _, owner in ipairs(redis.call('ZRANGE', queue_key(queue, 'owners'), 0, -1)) do
    length = length + redis.call('ZCARD', owner_jobs_key(queue, owner))
  end
  return length
end
