-- Attempts, as they are kept in the job record: field attempt:<n>, in JSON.
-- Uses: queue, concurrency

-- Decode the field of an attempt. The outcome is nil while the attempt runs, and 'lost' if there is no such field.
local function decode_attempt(field) return field and cjson.decode(field) or { outcome = 'lost' } end

local function read_attempt(id, attempt) return decode_attempt(redis.call('HGET', job_key(id), 'attempt:' .. attempt)) end

-- Encode the field of an attempt that has just ended.
local function closed_attempt(record, outcome, code)
  record.ended_at, record.outcome, record.error, record.token = now, outcome, code, nil
  return cjson.encode(record)
end

-- Record how an attempt ended.
local function close_attempt(id, record, outcome, code)
  redis.call('HSET', job_key(id), 'attempt:' .. record.number, closed_attempt(record, outcome, code))
end

-- An attempt that ran for this long shows that the outage before it was over.
local OUTAGE_OVER_MS = 10 * 60 * 1000
-- How many attempts that an outage interrupted are recorded; an outage may interrupt thousands.
local RECORDED_OUTAGES = 20

-- Note that an outage has interrupted an attempt. Returns whether the job has met nothing but the outage for as long as it may wait
-- in a queue.
local function outlasts_patience(id, attempt)
  local key, earlier = job_key(id), 'attempt:' .. (attempt - RECORDED_OUTAGES)
  local job = fields(id, 'outage_at', 'created_at', 'expires_at', 'attempt:' .. attempt, earlier)
  local started_at = cjson.decode(job['attempt:' .. attempt]).started_at
  if not job.outage_at or now - started_at > OUTAGE_OVER_MS then
    redis.call('HSET', key, 'outage_at', timestamp)
    return false
  end
  if job[earlier] and cjson.decode(job[earlier]).outcome == 'released' then redis.call('HDEL', key, earlier) end
  return now - tonumber(job.outage_at) > tonumber(job.expires_at) - tonumber(job.created_at)
end

local function worker_owners_key(worker) return PREFIX .. 'worker:' .. worker .. ':owners' end

-- How many jobs of each end user of an owner run, in all queues.
local function running_users_key(owner) return PREFIX .. 'owner:' .. owner .. ':running_users' end
-- A count that is wrong, as the record of a running job was deleted by hand, is forgotten at the latest when nothing starts for a day.
local RUNNING_USERS_SECONDS = 24 * 3600

-- The number of an owner's running jobs, without those that only wait for others.
local function running_jobs(owner)
  local number = 0
  for group, jobs in pairs(as_table(redis.call('HGETALL', PREFIX .. 'jobs:groups:' .. owner))) do
    local kind = string.match(group, '^in_progress (%S+)')
    if kind and kind ~= 'batch' and kind ~= 'request_batch' then number = number + tonumber(jobs) end
  end
  return number
end

local function assign_to_worker(id, owner, worker, end_user)
  redis.call('SADD', PREFIX .. 'worker:' .. worker .. ':jobs', id)
  redis.call('HINCRBY', worker_owners_key(worker), owner, 1)
  if is_set(end_user) then
    redis.call('HINCRBY', running_users_key(owner), digest_of_user(end_user), 1)
    redis.call('EXPIRE', running_users_key(owner), RUNNING_USERS_SECONDS)
  end
end

-- What release_from_worker needs of a job.
local RELEASE_FIELDS = { 'owner', 'end_user', 'queue', 'user_cost', 'concurrency_key' }

-- A job no longer runs on a worker. `job` has its RELEASE_FIELDS.
local function release_from_worker(id, worker, job)
  if redis.call('SREM', PREFIX .. 'worker:' .. worker .. ':jobs', id) == 0 then return end
  local owner = job.owner
  if owner then stop_for_user(job.queue, owner, job.end_user, job.user_cost) end
  if owner and is_set(job.end_user) then
    local user = digest_of_user(job.end_user)
    if redis.call('HINCRBY', running_users_key(owner), user, -1) <= 0 then redis.call('HDEL', running_users_key(owner), user) end
  end
  -- Without its record (deleted by hand) the owner is unknown. With the worker's last job the counts are void anyway.
  if not owner or redis.call('HINCRBY', worker_owners_key(worker), owner, -1) <= 0 then
    if owner then redis.call('HDEL', worker_owners_key(worker), owner) end
    if redis.call('EXISTS', PREFIX .. 'worker:' .. worker .. ':jobs') == 0 then redis.call('DEL', worker_owners_key(worker)) end
  end
  if owner then concurrency.stop(id, owner, job.concurrency_key) end
end
