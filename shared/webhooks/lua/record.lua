-- record: tell how a try went, and with that what becomes of the delivery.
-- ARGV: now, id, number of the try, verdict ('delivered' | 'retry' | 'exhausted' | 'gone'), delay_ms until the next try,
--       HTTP status or '', latency_ms, the beginning of the answer, what went wrong or ''
-- Keys: the record; deliveries:due and those of its authority; webhook:<id> when that is to be called no more
-- Returns 'ok' | 'lost' (this try was no longer the delivery's own).
-- Promise: a try is recorded once; a stale one changes nothing; sent twice it answers the same.

local id, number, verdict = ARGV[2], ARGV[3], ARGV[4]
local delivery = get(id, 'authority', 'endpoint', 'claimed', 'attempt', 'attempt:' .. number)
if not delivery[5] then return 'lost' end
local try = cjson.decode(delivery[5])
if try.ended_at then return try.outcome == 'lost' and 'lost' or 'ok' end
if delivery[3] ~= '1' or delivery[4] ~= number then return 'lost' end

local authority, why = delivery[1], ARGV[9]
close_try(id, authority, {
  outcome = verdict == 'delivered' and 'delivered' or 'failed',
  status = ARGV[6] ~= '' and tonumber(ARGV[6]) or nil,
  latency_ms = tonumber(ARGV[7]),
  answer = ARGV[8],
  error = why ~= '' and why or nil,
})
local mute = PREFIX .. 'deliveries:mute:' .. authority
if ARGV[6] ~= '' then redis.call('DEL', mute) else redis.call('SET', mute, '1', 'EX', MUTE_SECONDS) end

if verdict == 'delivered' then
  finish(id, 'delivered', '')
elseif verdict == 'retry' then
  redis.call('HINCRBY', key_of(id), 'failures', 1)
  redis.call('HSET', key_of(id), 'next_at', digits(now + tonumber(ARGV[5])))
  redis.call('ZADD', PREFIX .. 'deliveries:due', digits(now + tonumber(ARGV[5])), id)
  keep(id)
elseif verdict == 'gone' then
  finish(id, 'failed', 'the receiver answered 410: it wants no more')
  local endpoint = PREFIX .. 'webhook:' .. delivery[2]
  if delivery[2] ~= '' and redis.call('HGET', endpoint, 'disabled') == '' then
    redis.call('HSET', endpoint, 'disabled', 'its receiver answered 410', 'updated_at', digits(now))
  end
else
  finish(id, 'failed', why)
end
if judge(authority) then redis.call('PUBLISH', PREFIX .. 'deliveries', '1') end
return 'ok'
