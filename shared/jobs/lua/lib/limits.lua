-- Limits of owners: quotas of what they have, and rates.
-- Uses: core
--
-- Keys:
--   owner:<owner>:limits   hash    limit -> its value for this owner, where it is not that of the settings; 0 for none
--   rate:<bucket>          string  time (ms) at which the bucket is full again, kept until then

-- A bucket holds what it receives within this time.
local BURST_MS = 2000

-- The owner's limit of this name; `default` is that of the settings. Infinite when it is 0.
local function limit_of(owner, name, default)
  local limit = tonumber(redis.call('HGET', PREFIX .. 'owner:' .. owner .. ':limits', name) or default)
  return limit > 0 and limit or math.huge
end

-- Take from several buckets, all or none. Each has name, rate (what it receives per second) and cost (what is taken).
-- Returns 0, or after how many milliseconds all of it will be available; and what the bucket with the least left holds when full,
-- has left, and in how many milliseconds it is full again. These are 0 if no bucket has a finite rate.
local function take(buckets)
  local wait_ms, full_at, most, left, reset_ms = 0, {}, 0, math.huge, 0
  for i, bucket in ipairs(buckets) do
    local at = tonumber(redis.call('GET', PREFIX .. 'rate:' .. bucket.name) or now)
    full_at[i] = math.max(at, now) + 1000 * bucket.cost / bucket.rate
    wait_ms = math.max(wait_ms, full_at[i] - now - BURST_MS)
    local remaining = (BURST_MS - (full_at[i] - now)) * bucket.rate / 1000
    if bucket.rate < math.huge and remaining < left then
      most, left, reset_ms = BURST_MS * bucket.rate / 1000, remaining, full_at[i] - now
    end
  end
  left = most > 0 and math.max(0, math.floor(left)) or 0
  if wait_ms > 0 then return math.ceil(wait_ms), most, 0, math.ceil(reset_ms) end
  for i, bucket in ipairs(buckets) do
    if full_at[i] > now then
      redis.call('SET', PREFIX .. 'rate:' .. bucket.name, string.format('%.3f', full_at[i]), 'PX', math.ceil(full_at[i] - now))
    end
  end
  return 0, most, left, math.ceil(reset_ms)
end
