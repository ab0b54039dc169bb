-- Batches: jobs that count other jobs and end with the last of them.
-- Uses: job
--
-- Keys:
--   owner:<owner>:open_batches   set   the owner's batches that further jobs may join

-- Defined in transition.lua. A batch ends with its last job, so the end of a job may end its batch.
local finish

local function open_batches_key(owner) return PREFIX .. 'owner:' .. owner .. ':open_batches' end

local function batch_counts(id)
  local batch = fields(id, 'children', 'completed', 'failed', 'cancelled', 'expired')
  local counts, ended = { total = tonumber(batch.children or 0) }, 0
  for status in pairs(FINAL) do
    counts[status] = tonumber(batch[status] or 0)
    ended = ended + counts[status]
  end
  return counts, ended
end

-- Restart the time after which maintenance seals a batch that more jobs may join.
local function keep_open(id)
  local batch = fields(id, 'status', 'sealed', 'seal_ms')
  if batch.status ~= 'in_progress' or batch.sealed == '1' or not batch.seal_ms then return end
  local seal_at = digits(now + tonumber(batch.seal_ms))
  redis.call('HSET', job_key(id), 'expires_at', seal_at)
  redis.call('ZADD', PREFIX .. 'jobs:due', seal_at, id)
end

-- A batch ends when it is sealed (no job can join any more) and its last job has ended.
local function finish_batch_if_done(id)
  local batch = fields(id, 'sealed', 'cancel_requested_at', 'status', 'owner')
  if batch.status ~= 'in_progress' then return end
  local counts, ended = batch_counts(id)
  if batch.sealed == '1' and ended == counts.total then
    redis.call('HINCRBY', job_key(id), 'bytes', write_result(id, batch.owner, cjson.encode(counts)))
    finish(id, batch.cancel_requested_at and 'cancelled' or 'completed', 0)
  elseif ended % math.max(1, math.floor(counts.total / 100)) == 0 then
    emit(id, 'progress', 0, cjson.encode({ phase = 'running', done = ended, total = counts.total, unit = 'jobs' }))
  end
end

local function seal(id)
  redis.call('HSET', job_key(id), 'sealed', '1')
  redis.call('SREM', open_batches_key(fields(id, 'owner').owner), id)
  redis.call('ZADD', PREFIX .. 'jobs:due', 'inf', id)
  finish_batch_if_done(id)
end

-- Count a new job in its batch, unless the batch has ended. Returns whether the batch is to be cancelled.
local function add_to_batch(batch, id)
  local found = fields(batch, 'status', 'cancel_requested_at')
  if found.status == 'in_progress' then
    redis.call('SADD', job_key(batch) .. ':open', id)
    redis.call('HINCRBY', job_key(batch), 'children', 1)
    keep_open(batch)
  end
  return found.cancel_requested_at
end

-- Count the end of a job in its batch, once.
local function count_in_batch(batch, id, kind, status)
  if redis.call('SREM', job_key(batch) .. ':open', id) == 0 then return end
  -- An archive counts as one document until it is unpacked, and a URL until it is fetched. From then on what came of them is counted
  -- instead.
  if (kind == 'unpack' or kind == 'fetch') and status == 'completed' then
    redis.call('HINCRBY', job_key(batch), 'children', -1)
  else
    redis.call('HINCRBY', job_key(batch), status, 1)
  end
  keep_open(batch)
  finish_batch_if_done(batch)
end
