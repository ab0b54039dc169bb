-- claim: give the next job of a queue to a worker, under a lease.
-- Uses: job_index, queue, concurrency, attempt, delivery, histogram, limits
-- Flags: allow-oom
-- Arguments: queue, worker, token, retried, slots:number, reserved:number, lease_ms:number, running_limit:number, user_running_limit:number
--   retried is '1' if an earlier call with this token got no reply; slots is how many jobs the worker runs at once; it keeps reserved
--   ones of them for owners of whom it runs nothing, if there are several owners. running_limit and user_running_limit are how many jobs
--   of an owner, and of an end user, may run at once, for owners without their own limits; 0 for no limit.
-- Keys: paused; the queue; the record and events of the job; worker:<worker>:jobs; claim:<token>
-- Jobs of batches (priority 8 and 9) never have the reserved slots.
-- Returns {the record and the input as a flat list, or an empty list; queues to wake; 'held_back' if
-- jobs wait, but only of owners who must leave the free slots to others, or who have as many running jobs as they may, 'drained' if an operator drains the worker, else ''}.
-- Promise: the owner with the least service comes first, then the end user of that owner with the least service, then that user's
-- most urgent and oldest job. A job is given to one worker at a time. The same token returns the same job while that attempt is still
-- the current one. A job that has not started in time, or has exceeded its timeout, is taken from its queue and left to reap, and one with
-- whose concurrency key too many jobs run is parked (lib/concurrency.lua).

local token_key = PREFIX .. 'claim:' .. token

local claimed = redis.call('GET', token_key)
if claimed then
  local id, attempt = string.match(claimed, '(%S+) (%d+)')
  local job = fields(id, 'attempt', 'status')
  if job.attempt == attempt and job.status == 'in_progress' then
    return { whole_job(id, attempt), wakeups, '' }
  end
  return { {}, wakeups, '' }
end
-- The token is forgotten after a minute, and an outage may last longer. A second job would then run beside one that nobody runs.
if retried == '1' then
  for _, id in ipairs(redis.call('SMEMBERS', PREFIX .. 'worker:' .. worker .. ':jobs')) do
    local attempt = fields(id, 'attempt').attempt
    local record = attempt and redis.call('HGET', job_key(id), 'attempt:' .. attempt)
    if record and cjson.decode(record).token == token then return { whole_job(id, attempt), wakeups, '' } end
  end
end

-- The worker's slot keeps its wake-up, as the next one would only replace it.
local paused = redis.call('HMGET', PREFIX .. 'paused', 'worker:' .. (string.match(worker, '^(.*)/%d+$') or worker), 'queue:' .. queue)
if paused[1] then return { {}, wakeups, 'drained' } end
if paused[2] then return { {}, wakeups, '' } end

-- How many jobs the worker runs.
local running = redis.call('SCARD', PREFIX .. 'worker:' .. worker .. ':jobs')

-- Measure how fast the queue moves: the time between two claims counts when jobs waited in between, and when it was a job's end
-- that made the claim possible. Claims into slots that were free from the start say nothing about that. Jobs of equal length end together,
-- so the claims of a worker count from the first time that all its slots were taken, however many are free now.
local function record_gap()
  local pace = pace_key(queue)
  local last, was_full = unpack(redis.call('HMGET', pace, 'claimed_at', worker))
  local counts = was_full or running + 1 >= slots
  if counts and last and now - tonumber(last) < MAX_GAP_MS then
    local gaps = queue_key(queue, 'gaps')
    redis.call('LPUSH', gaps, now - tonumber(last))
    redis.call('LTRIM', gaps, 0, 99)
    redis.call('EXPIRE', gaps, 3600)
  end
  if redis.call('EXISTS', queue_key(queue, 'owners')) == 0 then
    redis.call('DEL', pace)
  elseif counts then
    redis.call('HSET', pace, 'claimed_at', timestamp, worker, '1')
  else
    redis.call('HDEL', pace, 'claimed_at')
  end
end

-- A job waits from the time at which it was queued, or from the later time at which it may start.
local function observed_wait(job)
  if is_set(job.line_of) then return '' end
  local since = math.max(tonumber(job.phase_at or '') or now, tonumber(job.not_before or '') or 0)
  return observed('wait', (job.kind or '') .. ' ' .. (job.model or ''), (now - since) / 1000)
end

-- Start the next attempt of a job. `record` is its record as a flat list, and `job` the same as a table. Returns the whole job.
local function start_attempt(id, record, job, owner, level, user_service)
  local attempt, sequence = tonumber(job.attempt) + 1, tonumber(job.seq) + 1
  local changes = { attempt = attempt, worker = worker, waiting = '', phase = 'started', phase_at = timestamp,
    started_at = job.started_at or timestamp, heartbeat_at = timestamp, written = 0, user_cost = user_service and job.cost or '',
    seq = sequence,
    ['attempt:' .. attempt] = cjson.encode({ number = attempt, worker = worker, queue = queue, started_at = now, token = token }) }
  set_status(id, job, 'in_progress', changes)
  redis.call('ZADD', PREFIX .. 'jobs:due', now + lease_ms, id)
  assign_to_worker(id, owner, worker, job.end_user)
  concurrency.start(id, owner, job.concurrency_key)
  redis.call('SET', token_key, id .. ' ' .. attempt, 'PX', math.max(60000, 2 * lease_ms))
  redis.call('SET', queue_key(queue, 'level'), level, 'EX', SERVICE_MEMORY_SECONDS)
  add_service(queue, owner, job.cost)
  if user_service then start_for_user(queue, owner, job.end_user, user_service, job.cost) end
  note(counted('claimed', queue), observed_wait(job))
  record_gap()
  if not job.started_at then create_deliveries(id, job, 'job.started') end
  add_event(id, sequence, job.event_limit, 'started', attempt, cjson.encode({ attempt = attempt, worker = worker }))
  -- Appending what has changed takes less time than reading the record again. The later of two values counts.
  for name, value in pairs(changes) do
    record[#record + 1] = name
    record[#record + 1] = type(value) == 'number' and digits(value) or value
  end
  return whole_job(id, attempt, record)
end

local owners = queue_key(queue, 'owners')

local function has_several_owners()
  return redis.call('ZCARD', owners) > 1 or redis.call('HLEN', queue_key(queue, 'service')) > 1 or redis.call('HLEN', PREFIX .. 'keys') > 1
end

local is_reserved = running >= slots - reserved and reserved > 0

local function is_batch_score(score) return score and tonumber(score) >= BATCH_PRIORITY * PRIORITY_STEP end

-- Whether all jobs of an owner in the queue leave the reserved slots to jobs for which somebody waits.
local function yields(owner)
  local _, score = lowest(owner_jobs_key(queue, owner))
  return is_batch_score(score)
end

-- The job of an owner that is next, its end user, and that user's service. Reserved slots are not for those end users who would leave them.
local function next_job(owner)
  local id, user, service = first_job(queue, owner)
  if not (is_reserved and user and is_batch_score(redis.call('ZSCORE', user_jobs_key(queue, owner, user), id))) then
    return id, user, service
  end
  local urgent = lowest(owner_jobs_key(queue, owner))
  local its_user = digest_of_user(fields(urgent, 'end_user').end_user)
  return urgent, its_user, redis.call('ZSCORE', users_key(queue, owner), its_user) or service
end

-- Whether an owner has as many running jobs as it may, in all queues.
local function is_at_limit(owner)
  local limit = limit_of(owner, 'running_jobs', running_limit)
  return limit < math.huge and running_jobs(owner) >= limit
end

-- The next job of an owner (see next_job) whose end user may have another running job; false if there are only jobs of others.
local function next_startable_job(owner)
  local id, user, service = next_job(owner)
  local limit = user and limit_of(owner, 'end_user_running_jobs', user_running_limit) or math.huge
  if limit == math.huge then return id, user, service end
  local running = as_table(redis.call('HGETALL', running_users_key(owner)))
  local function may_start(other) return other == NO_USER or tonumber(running[other] or 0) < limit end
  if may_start(user) then return id, user, service end
  local waiting = redis.call('ZRANGE', users_key(queue, owner), 0, -1, 'WITHSCORES')
  for i = 1, #waiting, 2 do
    local first, score = lowest(user_jobs_key(queue, owner, waiting[i]))
    if first and may_start(waiting[i]) and not (is_reserved and is_batch_score(score)) then return first, waiting[i], waiting[i + 1] end
  end
  return false
end

-- The owner with the least service who may have the slot, that service, and its next job; nil if no owner may have it.
local function next_owner()
  local first, level = lowest(owners)
  if not first then return nil end
  if not is_reserved and not is_at_limit(first) then
    local id, user, service = next_startable_job(first)
    if id ~= false then return first, level, id, user, service end
  end
  local waiting, several = redis.call('ZRANGE', owners, 0, -1, 'WITHSCORES'), has_several_owners()
  for i = 1, #waiting, 2 do
    local owner = waiting[i]
    local has_share = is_reserved and several and redis.call('HEXISTS', worker_owners_key(worker), owner) == 1
    if not has_share and not (is_reserved and yields(owner)) and not is_at_limit(owner) then
      local id, user, service = next_startable_job(owner)
      if id ~= false then return owner, waiting[i + 1], id, user, service end
    end
  end
end

-- How many jobs one call lets wait for others with their concurrency key.
local MAX_PARKED = 200
local parked = 0

while true do
  local owner, level, id, user, user_service = next_owner()
  if not owner then
    if redis.call('EXISTS', owners) == 0 then return { {}, wakeups, '' } end
    redis.call('SADD', held_key(queue), worker)
    redis.call('EXPIRE', held_key(queue), HELD_SECONDS)
    return { {}, wakeups, 'held_back' }
  end
  local was_queued = id and dequeue(id, queue, owner, user)
  if not id then redis.call('ZREM', owners, owner) end
  -- Nearly all of its fields are needed, and the worker gets all of them.
  local record = was_queued and redis.call('HGETALL', job_key(id))
  local job = record and as_table(record)
  if not job or not job.expires_at then
    -- A record that is gone (deleted by hand, for example), or that an older version has claimed, must not stop the queue.
  elseif (tonumber(job.expires_at) <= now and not job.started_at) or (job.timeout_at and tonumber(job.timeout_at) <= now) then
    -- reap ends it: the functions for that would double what Redis creates on each run of this script.
    redis.call('ZADD', PREFIX .. 'jobs:due', now, id)
  elseif concurrency.is_full(owner, job) then
    concurrency.park(id, owner, job.concurrency_key)
    parked = parked + 1
    if parked == MAX_PARKED then
      wakeups[#wakeups + 1] = queue
      return { {}, wakeups, '' }
    end
  else
    return { start_attempt(id, record, job, owner, level, user_service), wakeups, '' }
  end
end
