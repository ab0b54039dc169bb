-- Token limits: how many tokens the jobs of an owner, of an API key and of an end user may use per minute, and per day and month (UTC).
-- Uses: limits, queue, usage
--
-- Keys:
--   key:<id>:limits                  hash     limit -> its value for this API key
--   rate:tokens:<holder>             string   as rate:<bucket>; it holds what it receives in a minute
--   spent:<holder>:<day or month>    string   tokens of jobs that were submitted then
--
-- A holder is owner:<owner>, key:<id> or user:<owner>:<digest of the end user>. A job reserves its tokens when it is submitted, and
-- its end replaces them with the tokens used; until then its record has them as `reserved`, in JSON.

local reserve_tokens, settle_tokens

do
  local MINUTE_MS = 60000
  local NAMES = { 'tokens_per_minute', 'tokens_per_day', 'tokens_per_month' }

  local function bucket_name(holder) return 'tokens:' .. holder end

  local function spent_key(holder, period) return PREFIX .. 'spent:' .. holder .. ':' .. period end

  -- Milliseconds until a day or month is over.
  local function ms_left(day, period)
    local left = DAY_MS - now % DAY_MS
    if #period == #day then return left end
    local year, month, number = string.match(day, '(%d+)-(%d+)-(%d+)')
    local days = ({ 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 })[tonumber(month)]
    local is_leap_year = year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
    if month == '02' and is_leap_year then days = 29 end
    return left + (days - tonumber(number)) * DAY_MS
  end

  -- The token limits among others, with a prefix before their names, or the defaults; 0 for none. Nil if there is none.
  local function token_limits_in(others, prefix, defaults)
    local limits, is_limited = {}, false
    for _, name in ipairs(NAMES) do
      limits[name] = tonumber(others[prefix .. name] or defaults[prefix .. name] or 0)
      is_limited = is_limited or limits[name] > 0
    end
    return is_limited and limits or nil
  end

  -- The tokens that the ledger has of an owner, or of one of its end users, on a day.
  local function tokens_on(day, owner, user)
    local rows, total = as_table(redis.call('HGETALL', PREFIX .. 'usage:' .. day .. ':' .. owner)), 0
    for row, totals in pairs(rows) do
      local end_user = string.match(row, '^[^\n]*\n[^\n]*\n(.*)$')
      local is_of_user = end_user and string.sub(end_user, 1, 1) == '=' and digest_of_user(string.sub(end_user, 2)) == user
      if end_user and (not user or is_of_user) then
        local numbers = numbers_in(totals)
        total = total + (numbers[2] or 0) + (numbers[4] or 0) + (numbers[5] or 0)
      end
    end
    return total
  end

  -- Start the count of what a holder spends in a day or month with what the ledger has of it, and return that. The ledger does not know
  -- API keys.
  local function count_spent(holder, period, day)
    local key, total = spent_key(holder.name, period), 0
    if holder.kind ~= 'api_key' then
      local first = #period == #day and tonumber(string.sub(day, 9)) or 1
      for number = first, tonumber(string.sub(day, 9)) do
        total = total + tokens_on(string.format('%s-%02d', string.sub(day, 1, 7), number), holder.owner, holder.user)
      end
    end
    redis.call('SET', key, digits(total), 'PX', digits(ms_left(day, period) + DAY_MS))
    return total
  end

  -- Who is limited among those who submit jobs: holders with their limits and the tokens that their jobs need together.
  local function find_holders(owner, key, jobs, defaults)
    local holders, by_name = {}, {}
    local user_limits = token_limits_in(limits_of_owner(owner), 'end_user_', defaults)
    local function add(name, kind, limits, tokens, user)
      if not limits then return end
      if not by_name[name] then
        by_name[name] = { name = name, kind = kind, owner = owner, user = user, limits = limits, tokens = 0 }
        holders[#holders + 1] = by_name[name]
      end
      by_name[name].tokens = by_name[name].tokens + tokens
    end
    local owner_limits = token_limits_in(limits_of_owner(owner), '', defaults)
    local key_limits = key ~= '' and token_limits_in(as_table(redis.call('HGETALL', PREFIX .. 'key:' .. key .. ':limits')), '', {}) or nil
    for _, job in ipairs(jobs) do
      add('owner:' .. owner, 'owner', owner_limits, job.tokens)
      add('key:' .. key, 'api_key', key_limits, job.tokens)
      if is_set(job.end_user) then
        local user = digest_of_user(job.end_user)
        add('user:' .. owner .. ':' .. user, 'end_user', user_limits, job.tokens, user)
      end
    end
    return holders
  end

  -- Reserve the tokens of jobs, each with tokens and end_user, all or none. Returns nil and the state of the rate (see take), or the
  -- reason for the refusal and the values of its error: whose limit, its name, the limit, what is left, milliseconds to wait. Sets
  -- `reserved` of the jobs.
  reserve_tokens = function(owner, key, jobs, defaults)
    local holders = find_holders(owner, key, jobs, defaults)
    if #holders == 0 then return nil, { 0, 0, 0 } end
    local day, buckets, budgets, keys = utc_date(), {}, {}, {}
    local periods = { tokens_per_day = day, tokens_per_month = string.sub(day, 1, 7) }
    for _, holder in ipairs(holders) do
      for name, period in pairs(periods) do
        if holder.limits[name] > 0 then
          budgets[#budgets + 1] = { holder = holder, name = name, period = period }
          keys[#keys + 1] = spent_key(holder.name, period)
        end
      end
    end
    local spent = #keys > 0 and redis.call('MGET', unpack(keys))
    for i, budget in ipairs(budgets) do
      local holder = budget.holder
      local limit = holder.limits[budget.name]
      local left = limit - tonumber(spent[i] or count_spent(holder, budget.period, day))
      if left <= 0 or holder.tokens > left then
        return 'budget_spent', { holder.kind, budget.name, digits(limit), digits(math.max(0, left)), digits(ms_left(day, budget.period)) }
      end
    end
    for _, holder in ipairs(holders) do
      local per_minute = holder.limits.tokens_per_minute
      if per_minute > 0 then
        if holder.tokens > per_minute then
          return 'too_many_tokens', { holder.kind, 'tokens_per_minute', digits(per_minute), digits(holder.tokens), '0' }
        end
        local name = bucket_name(holder.name)
        buckets[#buckets + 1] = { name = name, kind = holder.kind, rate = per_minute / 60, cost = holder.tokens, burst_ms = MINUTE_MS }
      end
    end
    local wait_ms, most, left, reset_ms, longest = take(buckets)
    if wait_ms > 0 then
      local kind = buckets[longest].kind
      return 'tokens_limited', { kind, 'tokens_per_minute', digits(most), digits(left), digits(wait_ms), digits(reset_ms) }
    end
    for i, budget in ipairs(budgets) do redis.call('INCRBY', keys[i], digits(budget.holder.tokens)) end
    for _, job in ipairs(jobs) do
      local charged = {}
      for _, holder in ipairs(holders) do
        if holder.kind ~= 'end_user' or holder.name == 'user:' .. owner .. ':' .. digest_of_user(job.end_user) then
          charged[#charged + 1] = { holder.name, holder.limits.tokens_per_minute }
        end
      end
      if #charged > 0 then job.reserved = cjson.encode({ tokens = job.tokens, day = day, holders = charged }) end
    end
    return nil, { most, left, reset_ms }
  end

  -- Replace the tokens that a job has reserved by those it has used, when it ends.
  settle_tokens = function(reserved, used)
    local reservation = cjson.decode(reserved)
    local more, keys = used - reservation.tokens, {}
    for _, holder in ipairs(reservation.holders) do
      local name, per_minute = holder[1], holder[2]
      if per_minute > 0 then give_back(bucket_name(name), per_minute / 60, -more) end
      keys[#keys + 1] = spent_key(name, reservation.day)
      keys[#keys + 1] = spent_key(name, string.sub(reservation.day, 1, 7))
    end
    -- A count that has expired must not come back without a time to live.
    for i, spent in ipairs(#keys > 0 and redis.call('MGET', unpack(keys)) or {}) do
      if spent then redis.call('INCRBY', keys[i], digits(more)) end
    end
  end
end
