-- Webhook deliveries: records that are written with the transition of a job.
-- Uses: job, histogram
--
-- Keys:
--   delivery:<id>              hash    the record; shared/webhooks/deliveries.py lists its fields
--   delivery:<id>:job          hash    the job's record as it was at the time of the event
--   deliveries:due             zset    deliveries that wait or are being attempted -> time of the next attempt, or end of the lease
--   deliveries:pending         zset    deliveries that have not ended -> time of their event, or of the latest redelivery
--   owner:<owner>:deliveries   zset    ids of the owner's deliveries, all with score 0
--   owner:<owner>:webhooks     zset    ids of the owner's endpoints
--   webhook:<id>               hash    an endpoint; shared/webhooks/endpoints.py lists its fields
--   deliveries:ready:<authority>   zset    deliveries to an authority whose time has come -> since when
--   deliveries:busy:<authority>    set     deliveries to an authority that are being attempted
-- Channel: deliveries (a delivery can be claimed).

-- Attempts continue for about three days, even if the job would be kept for less.
local MIN_RETENTION_MS = 4 * 24 * 3600 * 1000

local function delivery_key(id) return PREFIX .. 'delivery:' .. id end

local function ready_key(authority) return PREFIX .. 'deliveries:ready:' .. authority end

local function busy_key(authority) return PREFIX .. 'deliveries:busy:' .. authority end

-- The layout of shared/ids.py: ten digits of time, then sixteen others. The same event at the same time has the same id.
local function delivery_id(event)
  local alphabet, milliseconds, time = '0123456789abcdefghjkmnpqrstvwxyz', now, ''
  for _ = 1, 10 do
    local digit = milliseconds % 32
    time = string.sub(alphabet, digit + 1, digit + 1) .. time
    milliseconds = (milliseconds - digit) / 32
  end
  return 'dlv_' .. time .. string.sub(redis.sha1hex(event), 1, 16)
end

-- The receivers of an event: the job's own webhook, and each endpoint of its owner that subscribes to the event, except one
-- with the URL of the job's webhook.
local function delivery_targets(job, event)
  local targets, own_url = {}, nil
  if job.webhook then
    local webhook = cjson.decode(job.webhook)
    if contains(webhook.events, event) then targets[1], own_url = webhook, webhook.url end
  end
  for _, id in ipairs(redis.call('ZRANGE', PREFIX .. 'owner:' .. job.owner .. ':webhooks', 0, -1)) do
    local endpoint = hash_fields(PREFIX .. 'webhook:' .. id, 'url', 'authority', 'events', 'job_kinds', 'disabled')
    if endpoint.url and endpoint.url ~= own_url and endpoint.disabled == '' and
      contains(cjson.decode(endpoint.events), event) and contains(cjson.decode(endpoint.job_kinds), job.kind) then
      targets[#targets + 1] = { url = endpoint.url, authority = endpoint.authority, endpoint = id, secret = '' }
    end
  end
  return targets
end

-- Write a delivery of an event to each of its targets, with a copy of the job's record at this time. Returns their number. `job` is
-- that record.
local function create_deliveries(id, job, event)
  -- A request batch has events; its thousands of lines have none.
  if is_set(job.line_of) then return 0 end
  -- Nothing of such a job is kept, and a delivery would keep it for days.
  if job.response == 'not_stored' then return 0 end
  local targets = delivery_targets(job, event)
  for _, target in ipairs(targets) do
    local delivery = delivery_id(id .. ' ' .. event .. ' ' .. target.endpoint .. ' ' .. target.url)
    local key, retention_ms = delivery_key(delivery), digits(math.max(tonumber(job.retention_ms), MIN_RETENTION_MS))
    redis.call('HSET', key, 'id', delivery, 'owner', job.owner, 'job', id, 'event', event, 'url', target.url,
      'authority', target.authority, 'endpoint', target.endpoint, 'secret', target.secret, 'status', 'pending',
      'created_at', timestamp, 'next_at', timestamp, 'attempt', 0, 'failures', 0, 'lost', 0,
      'retention_ms', job.retention_ms)
    count('deliveries made')
    redis.call('COPY', job_key(id), key .. ':job', 'REPLACE')
    redis.call('HDEL', key .. ':job', 'summary', 'webhook')
    redis.call('PEXPIRE', key, retention_ms)
    redis.call('PEXPIRE', key .. ':job', retention_ms)
    redis.call('ZADD', PREFIX .. 'deliveries:due', timestamp, delivery)
    redis.call('ZADD', PREFIX .. 'deliveries:pending', timestamp, delivery)
    redis.call('ZADD', PREFIX .. 'owner:' .. job.owner .. ':deliveries', 0, delivery)
    redis.call('ZADD', job_key(id) .. ':deliveries', 0, delivery)
    redis.call('PEXPIRE', job_key(id) .. ':deliveries', retention_ms)
  end
  if #targets > 0 then redis.call('PUBLISH', PREFIX .. 'deliveries', #targets) end
  return #targets
end
