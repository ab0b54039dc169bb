-- Attempts, as they are kept in the job record: field attempt:<n>, in JSON.
-- Uses: job

-- How an attempt ended: nil while it runs, 'lost' when there is no record of it.
local function outcome_of(id, attempt)
  local record = redis.call('HGET', job_key(id), 'attempt:' .. attempt)
  if not record then return 'lost' end
  return cjson.decode(record).outcome
end

local function close_attempt(id, attempt, outcome, code)
  local key, field = job_key(id), 'attempt:' .. attempt
  local record = cjson.decode(redis.call('HGET', key, field))
  record.ended_at, record.outcome, record.error = now, outcome, code
  redis.call('HSET', key, field, cjson.encode(record))
end

local function release_from_worker(id, worker)
  redis.call('SREM', PREFIX .. 'worker:' .. worker .. ':jobs', id)
end
