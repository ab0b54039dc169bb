-- Concurrency keys: a limit on how many of an owner's jobs with the same key run at once.
-- Uses: queue
--
-- Keys:
--   concurrency:<owner>:<k>:running   set    jobs with this key that run, each under a lease
--   concurrency:<owner>:<k>:parked    zset   jobs whose turn came while too many others ran -> their score in the queue
--
-- Clients choose the keys, so names of Redis keys have only a digest (<k>). A job waits in its queue like any other until its turn
-- comes. If it may not start then, it is parked, so that it holds up no other job, and returns to its queue when one that runs ends.

local concurrency = {}

do
  -- The first parked job is looked at this often, in case a job that ran was removed by hand, or ended by an older version.
  local WATCH_MS = 30000

  local function key_of(owner, key, part)
    return PREFIX .. 'concurrency:' .. owner .. ':' .. string.sub(redis.sha1hex(key), 1, 16) .. ':' .. part
  end

  local function watch_first(parked)
    local first = lowest(parked)
    if first then redis.call('ZADD', PREFIX .. 'jobs:due', math.min(now + WATCH_MS, deadline(first)), first) end
  end

  -- Whether as many jobs with the key of this job run as it allows.
  function concurrency.is_full(owner, job)
    if not is_set(job.concurrency_key) then return false end
    return redis.call('SCARD', key_of(owner, job.concurrency_key, 'running')) >= tonumber(job.concurrency_limit)
  end

  -- Let a job wait that was taken from its queue.
  function concurrency.park(id, owner, key)
    local job, parked = fields(id, 'priority', 'created_at'), key_of(owner, key, 'parked')
    redis.call('ZADD', parked, tonumber(job.priority) * PRIORITY_STEP + tonumber(job.created_at), id)
    redis.call('HSET', job_key(id), 'waiting', 'concurrency')
    redis.call('ZADD', PREFIX .. 'jobs:due', deadline(id), id)
    watch_first(parked)
  end

  -- Return as many parked jobs to their queues as may start.
  function concurrency.wake(owner, key)
    local parked = key_of(owner, key, 'parked')
    local first = lowest(parked)
    if not first then return end
    local running = redis.call('SCARD', key_of(owner, key, 'running'))
    while first do
      local job = fields(first, 'status', 'concurrency_limit')
      if job.status and running >= tonumber(job.concurrency_limit) then break end
      redis.call('ZREM', parked, first)
      -- A record that is gone was deleted by hand.
      if job.status then
        enqueue(first)
        running = running + 1
      end
      first = lowest(parked)
    end
    watch_first(parked)
  end

  function concurrency.start(id, owner, key)
    if is_set(key) then redis.call('SADD', key_of(owner, key, 'running'), id) end
  end

  -- A job has stopped running.
  function concurrency.stop(id, owner, key)
    if not is_set(key) then return end
    redis.call('SREM', key_of(owner, key, 'running'), id)
    concurrency.wake(owner, key)
  end

  -- A queued job ends, and with it maybe the turn that another waits for.
  function concurrency.leave(id, owner, key)
    if not is_set(key) then return end
    if redis.call('ZREM', key_of(owner, key, 'parked'), id) == 0 then concurrency.wake(owner, key) end
  end

  -- Count the running jobs of a key again, and return those parked jobs to their queues that may start.
  function concurrency.recount(owner, key)
    local running = key_of(owner, key, 'running')
    for _, id in ipairs(redis.call('SMEMBERS', running)) do
      if fields(id, 'status').status ~= 'in_progress' then redis.call('SREM', running, id) end
    end
    concurrency.wake(owner, key)
  end
end
