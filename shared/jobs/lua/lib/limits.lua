-- Limits of owners: quotas of what they have, and rates.
-- Uses: core
--
-- Keys:
--   owner:<owner>:limits   hash    limit -> its value for this owner, where it is not that of the settings; 0 for none
--   rate:<bucket>          string  time (ms) at which the bucket is full again, kept until then

-- A bucket holds what it receives within this time, unless it has its own time.
local BURST_MS = 2000

-- Limits that this run of the script has read, by owner.
local known_limits = {}

-- All limits that an owner has for itself.
local function limits_of_owner(owner)
  known_limits[owner] = known_limits[owner] or as_table(redis.call('HGETALL', PREFIX .. 'owner:' .. owner .. ':limits'))
  return known_limits[owner]
end

-- The owner's limit of this name; `default` is that of the settings. Infinite when it is 0.
local function limit_of(owner, name, default)
  local limit = tonumber(limits_of_owner(owner)[name] or default)
  return limit > 0 and limit or math.huge
end

-- Take from several buckets, all or none. Each has name, rate (what it receives per second), cost (what is taken), and maybe burst_ms.
-- Returns 0, or after how many milliseconds all of it will be available; and what the bucket with the least left holds when full,
-- has left, and in how many milliseconds it is full again. These are 0 if no bucket has a finite rate. Fifth, if there is too little,
-- the number of the bucket to wait for.
local function take(buckets)
  local wait_ms, longest, full_at, most, left, reset_ms = 0, nil, {}, 0, math.huge, 0
  local before, reset_before = 0, 0
  for i, bucket in ipairs(buckets) do
    local at = tonumber(redis.call('GET', PREFIX .. 'rate:' .. bucket.name) or now)
    local burst_ms = bucket.burst_ms or BURST_MS
    full_at[i] = math.max(at, now) + 1000 * bucket.cost / bucket.rate
    local wait = full_at[i] - now - burst_ms
    if wait > wait_ms then wait_ms, longest = wait, i end
    local remaining = (burst_ms - (full_at[i] - now)) * bucket.rate / 1000
    if bucket.rate < math.huge and remaining < left then
      most, left, reset_ms = burst_ms * bucket.rate / 1000, remaining, full_at[i] - now
      before, reset_before = (burst_ms - math.max(0, at - now)) * bucket.rate / 1000, math.max(0, at - now)
    end
  end
  left = most > 0 and math.max(0, math.floor(left)) or 0
  if wait_ms > 0 then return math.ceil(wait_ms), most, math.max(0, math.floor(before)), math.ceil(reset_before), longest end
  for i, bucket in ipairs(buckets) do
    if full_at[i] > now then
      redis.call('SET', PREFIX .. 'rate:' .. bucket.name, string.format('%.3f', full_at[i]), 'PX', math.ceil(full_at[i] - now))
    end
  end
  return 0, most, left, math.ceil(reset_ms)
end

-- Return to a bucket what was not used, or take more (a negative amount) than it has.
local function give_back(name, rate, amount)
  local key = PREFIX .. 'rate:' .. name
  local full_at = math.max(tonumber(redis.call('GET', key) or now), now) - 1000 * amount / rate
  if full_at > now then
    redis.call('SET', key, string.format('%.3f', full_at), 'PX', math.ceil(full_at - now))
  else
    redis.call('DEL', key)
  end
end
