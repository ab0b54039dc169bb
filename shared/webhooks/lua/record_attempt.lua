-- record_attempt: record the outcome of an attempt and what follows from it for the delivery.
-- Uses: delivery_queue
-- Flags: allow-oom
-- Arguments: id, number, outcome, delay_ms:number, status:number, latency_ms:number, answer, error
--   number is the attempt's; outcome is 'delivered' | 'retry' | 'exhausted' | 'gone'; delay_ms is the time until the next attempt;
--   status is the HTTP status, empty without a response; answer is the start of the response; error is empty or a description.
-- Keys: the record; deliveries:due and those of its authority; webhook:<id> when it is to be disabled
-- Returns 'ok' | 'lost' (this attempt was no longer the current one).
-- Promise: an attempt is recorded once. A stale one changes nothing. Sent twice, it returns the same.

local field = 'attempt:' .. number
local delivery = delivery_fields(id, 'authority', 'endpoint', 'claimed', 'attempt', field)
if not delivery[field] then return 'lost' end
local attempt = cjson.decode(delivery[field])
if attempt.ended_at then return attempt.outcome == 'lost' and 'lost' or 'ok' end
if delivery.claimed ~= '1' or delivery.attempt ~= number then return 'lost' end

local authority = delivery.authority
close_delivery_attempt(id, authority, {
  outcome = outcome == 'delivered' and 'delivered' or 'failed',
  status = status,
  latency_ms = latency_ms,
  answer = answer,
  error = error ~= '' and error or nil,
})
if status then
  redis.call('DEL', mute_key(authority))
else
  redis.call('SET', mute_key(authority), '1', 'EX', MUTE_SECONDS)
end

if outcome == 'delivered' then
  finish_delivery(id, 'delivered', '')
elseif outcome == 'retry' then
  local next_at = digits(now + delay_ms)
  redis.call('HINCRBY', delivery_key(id), 'failures', 1)
  redis.call('HSET', delivery_key(id), 'next_at', next_at)
  redis.call('ZADD', PREFIX .. 'deliveries:due', next_at, id)
  renew_delivery(id)
elseif outcome == 'gone' then
  finish_delivery(id, 'failed', 'The receiver answered 410, which means that it wants no more deliveries.')
  local endpoint = PREFIX .. 'webhook:' .. delivery.endpoint
  if delivery.endpoint ~= '' and redis.call('HGET', endpoint, 'disabled') == '' then
    redis.call('HSET', endpoint, 'disabled', 'its receiver answered 410', 'updated_at', timestamp)
  end
else
  finish_delivery(id, 'failed', error)
end
if update_authority(authority) then redis.call('PUBLISH', PREFIX .. 'deliveries', '1') end
return 'ok'
