-- Idempotency-Keys.
-- Uses: job
--
-- Keys:
--   idempotency:<owner>:<k>  hash    the request that was made with this Idempotency-Key: fingerprint, job

local IDEMPOTENCY_SECONDS = 24 * 3600

local function idempotency_key(owner, key) return PREFIX .. 'idempotency:' .. owner .. ':' .. key end

-- The outcome and job of an earlier request with this id or Idempotency-Key; nil when there was none. A key is forgotten with its
-- job: once that is deleted there is nothing to return, and the request counts as a new one, as after the key has expired.
local function find_earlier(id, owner, key, fingerprint)
  if redis.call('EXISTS', job_key(id)) == 1 then return 'exists', id end
  if key == '' then return nil end
  local earlier = hash_fields(idempotency_key(owner, key), 'fingerprint', 'job')
  if not earlier.fingerprint or redis.call('EXISTS', job_key(earlier.job)) == 0 then return nil end
  if earlier.fingerprint ~= fingerprint then return 'conflict', earlier.job end
  return 'replayed', earlier.job
end

local function remember_request(id, owner, key, fingerprint)
  if key == '' then return end
  local name = idempotency_key(owner, key)
  redis.call('HSET', name, 'fingerprint', fingerprint, 'job', id)
  redis.call('EXPIRE', name, IDEMPOTENCY_SECONDS)
end
