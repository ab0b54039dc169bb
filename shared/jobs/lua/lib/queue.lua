-- Queues with fair shares between owners, and between the end users of each owner.
-- Uses: job
--
-- Keys:
--   queues                   set     every queue that has ever had a job
--   queue:<q>:owners         zset    owners with a job in this queue -> service received (tokens / weight)
--   queue:<q>:jobs:<owner>   zset    all jobs of the owner -> priority, then time of submission
--   queue:<q>:service        hash    owner -> service received, also of owners with nothing queued now
--   queue:<q>:level          string  service of the owner that was served last, at the time of that claim
--   queue:<q>:users:<owner>          zset    end users of the owner with a job in this queue -> service received (tokens)
--   queue:<q>:user_jobs:<owner>:<u>  zset    their jobs -> priority, then time of submission
--   queue:<q>:user_service:<owner>   zset    end users without a job in this queue who have received more than user_level -> service
--   queue:<q>:user_running:<owner>   hash    end user -> expected service of running jobs, which is part of the service above
--   queue:<q>:user_level:<owner>     string  from where a new end user starts: what the one that was served last had received by then,
--                                            apart from running jobs, whose expected service may be far too high
--   queue:<q>:gaps           list    milliseconds between the latest claims while jobs waited, newest first
--   queue:<q>:held           set     workers that hold a free slot back for more urgent jobs
--   queue:<q>:pace           hash    claimed_at -> time of the latest claim; worker -> '1' if all its slots have been taken. Kept while jobs wait.
--   weights                  hash    owner -> weight of its share, where it is not 1
--   paused                   hash    queue:<q> or worker:<name> -> since when an operator lets nothing be claimed there
--   wakeup_sent:<q>          string  present for a moment after missing wake-ups were sent to this queue
--
-- Clients choose the names of end users, so a key has only a digest (<u>). Jobs without an end user share as if they had one. As long as
-- an owner has only those, there are no users keys, which are most of the work.

local SERVICE_MEMORY_SECONDS = 3600
-- Of an owner's end users without a job in the queue, those with the most service are remembered.
local MAX_ABSENT_USERS = 1000
-- Sorts after all digests: of two with equal service, a new end user comes first.
local NO_USER = '~'
-- A job's score in its queue is its priority times this, plus the time of its submission.
local PRIORITY_STEP = 1e13
-- Jobs of this priority and of later ones, which nobody waits for, leave some slots of each worker free.
local BATCH_PRIORITY = 8
local HELD_SECONDS = 5
-- A longer time between two claims is an outage, and not the pace of the queue.
local MAX_GAP_MS = 600000

-- Queues in which a job has become claimable; Python sends a wake-up for each.
local wakeups = {}

local function queue_key(queue, part) return PREFIX .. 'queue:' .. queue .. ':' .. part end

local function owner_jobs_key(queue, owner) return queue_key(queue, 'jobs:' .. owner) end

local function pace_key(queue) return queue_key(queue, 'pace') end

local function held_key(queue) return queue_key(queue, 'held') end

-- Let workers look again that hold a slot back for a job such as this one.
local function notify_held_slots(queue)
  local workers = redis.call('SMEMBERS', held_key(queue))
  for _, worker in ipairs(workers) do
    redis.call('PUBLISH', PREFIX .. 'worker:' .. worker, cjson.encode({ job_waits = queue }))
  end
  if #workers > 0 then redis.call('DEL', held_key(queue)) end
end

local function set_service(queue, owner, service)
  local key = queue_key(queue, 'service')
  redis.call('HSET', key, owner, service)
  redis.call('EXPIRE', key, SERVICE_MEMORY_SECONDS)
end

local function users_key(queue, owner) return queue_key(queue, 'users:' .. owner) end

local function user_jobs_key(queue, owner, user) return queue_key(queue, 'user_jobs:' .. owner .. ':' .. user) end

local function user_level_key(queue, owner) return queue_key(queue, 'user_level:' .. owner) end

local function digest_of_user(end_user) return is_set(end_user) and string.sub(redis.sha1hex(end_user), 1, 16) or NO_USER end

local function user_running_key(queue, owner) return queue_key(queue, 'user_running:' .. owner) end

local function running_service(queue, owner, user)
  return tonumber(redis.call('HGET', user_running_key(queue, owner), user) or 0)
end

local function user_level(queue, owner) return tonumber(redis.call('GET', user_level_key(queue, owner)) or 0) end

-- The service from which an end user without a job in the queue would go on.
local function absent_user_service(queue, owner, user)
  local service = redis.call('ZSCORE', queue_key(queue, 'user_service:' .. owner), user) or 0
  return math.max(tonumber(service), user_level(queue, owner) + running_service(queue, owner, user))
end

-- Those who have received no more than the level need not be remembered: they would start there anyway.
local function set_absent_user_service(queue, owner, user, service)
  local key = queue_key(queue, 'user_service:' .. owner)
  redis.call('ZADD', key, service, user)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', user_level(queue, owner))
  redis.call('ZREMRANGEBYRANK', key, 0, -MAX_ABSENT_USERS - 1)
  redis.call('EXPIRE', key, SERVICE_MEMORY_SECONDS)
end

-- Whether an owner's jobs have end users, or had some lately.
local function shares_by_user(queue, owner)
  return redis.call('EXISTS', users_key(queue, owner), user_level_key(queue, owner)) > 0
end

local function add_user_service(queue, owner, end_user, tokens)
  local user = digest_of_user(end_user)
  if user == NO_USER and not shares_by_user(queue, owner) then return end
  if redis.call('ZADD', users_key(queue, owner), 'XX', 'INCR', tokens, user) then return end
  set_absent_user_service(queue, owner, user, absent_user_service(queue, owner, user) + tokens)
end

-- Note that a job of an end user runs, who had received `service` before it. Its record has the cost as user_cost.
local function start_for_user(queue, owner, end_user, service, cost)
  local user = digest_of_user(end_user)
  local level = math.max(tonumber(service) - running_service(queue, owner, user), user_level(queue, owner))
  add_user_service(queue, owner, end_user, cost)
  redis.call('SET', user_level_key(queue, owner), level, 'EX', SERVICE_MEMORY_SECONDS)
  redis.call('HINCRBYFLOAT', user_running_key(queue, owner), user, cost)
  redis.call('EXPIRE', user_running_key(queue, owner), SERVICE_MEMORY_SECONDS)
end

local function stop_for_user(queue, owner, end_user, user_cost)
  if not is_set(user_cost) then return end
  local running, user = user_running_key(queue, owner), digest_of_user(end_user)
  if tonumber(redis.call('HINCRBYFLOAT', running, user, -tonumber(user_cost))) <= 0 then redis.call('HDEL', running, user) end
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
local function deadline_of(job)
  local start_by = job.started_at and math.huge or tonumber(job.expires_at)
  return math.min(start_by, tonumber(job.timeout_at or 'inf'))
end

local function deadline(id) return deadline_of(fields(id, 'expires_at', 'timeout_at', 'started_at')) end

-- Put a job into the queue of its end user.
local function enqueue_for_user(id, queue, owner, user, score)
  local users = users_key(queue, owner)
  if not redis.call('ZSCORE', users, user) then
    redis.call('ZADD', users, absent_user_service(queue, owner, user), user)
    redis.call('ZREM', queue_key(queue, 'user_service:' .. owner), user)
  end
  redis.call('ZADD', user_jobs_key(queue, owner, user), score, id)
end

-- Start to share by end users with the jobs that wait without one.
local function share_by_user(queue, owner)
  if redis.call('COPY', owner_jobs_key(queue, owner), user_jobs_key(queue, owner, NO_USER), 'REPLACE') == 0 then return end
  redis.call('ZADD', users_key(queue, owner), absent_user_service(queue, owner, NO_USER), NO_USER)
end

-- Make a queued job claimable. An owner that is new to the queue starts at the least service among those that wait, or that
-- last waited, so that neither a long absence nor a first job gives it every turn. `job` is its record, if the caller has read it.
local function enqueue(id, job)
  job = job or fields(id, 'queue', 'owner', 'end_user', 'priority', 'created_at', 'expires_at', 'timeout_at', 'started_at')
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
    redis.call('SADD', PREFIX .. 'queues', queue)
  end
  local score = tonumber(job.priority) * PRIORITY_STEP + tonumber(job.created_at)
  local has_users = redis.call('EXISTS', users_key(queue, owner)) == 1
  if is_set(job.end_user) and not has_users then share_by_user(queue, owner) end
  redis.call('ZADD', owner_jobs_key(queue, owner), score, id)
  if is_set(job.end_user) or has_users then enqueue_for_user(id, queue, owner, digest_of_user(job.end_user), score) end
  redis.call('ZADD', PREFIX .. 'jobs:due', deadline_of(job), id)
  if job.waiting ~= 'worker' then redis.call('HSET', job_key(id), 'waiting', 'worker') end
  if tonumber(job.priority) < BATCH_PRIORITY then notify_held_slots(queue) end
  wakeups[#wakeups + 1] = queue
end

local function dequeue_for_user(id, queue, owner, user)
  local jobs = user_jobs_key(queue, owner, user)
  redis.call('ZREM', jobs, id)
  if redis.call('EXISTS', jobs) == 1 then return end
  local service = redis.call('ZSCORE', users_key(queue, owner), user)
  if not service then return end
  redis.call('ZREM', users_key(queue, owner), user)
  set_absent_user_service(queue, owner, user, service)
end

-- Take a job from its queue; user is nil if the owner's jobs have no end users. Returns whether it was there.
local function dequeue(id, queue, owner, user)
  local jobs = owner_jobs_key(queue, owner)
  local was_queued = redis.call('ZREM', jobs, id) == 1
  if user then dequeue_for_user(id, queue, owner, user) end
  if redis.call('EXISTS', jobs) == 0 then redis.call('ZREM', queue_key(queue, 'owners'), owner) end
  return was_queued
end

-- The first job of the end user with the least service, that user, and that service, which are nil if the owner's jobs have no end
-- users. Nil if the owner has no job in the queue.
local function first_job(queue, owner)
  while true do
    local user, service = lowest(users_key(queue, owner))
    if not user then return lowest(owner_jobs_key(queue, owner)), nil, nil end
    local id = lowest(user_jobs_key(queue, owner, user))
    if id then return id, user, service end
    redis.call('ZREM', users_key(queue, owner), user)
  end
end

-- Delay a queued job; reap makes it claimable when its time has come.
local function postpone(id, not_before)
  redis.call('HSET', job_key(id), 'not_before', digits(not_before), 'waiting', 'retry_at')
  redis.call('ZADD', PREFIX .. 'jobs:due', math.min(not_before, deadline(id)), id)
end

-- Make a job claimable at once, or after its delay. `job` is its record, if the caller has read it.
local function make_ready(id, job)
  local not_before = tonumber((job or fields(id, 'not_before')).not_before or 0)
  if not_before <= now then enqueue(id, job) else postpone(id, not_before) end
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

-- The number of end users of an owner who have claimable jobs.
local function waiting_users(queue, owner)
  local users = users_key(queue, owner)
  return redis.call('ZCARD', users) - (redis.call('ZSCORE', users, NO_USER) and 1 or 0)
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
