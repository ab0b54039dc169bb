-- Usage ledger: what the jobs that ended on each day (UTC) have used. It outlives the jobs.
-- Uses: core
--
-- Keys:
--   usage:<day>            set    owners with usage on this day, such as 2026-01-31
--   usage:<day>:<owner>    hash   row -> totals. A row is "<kind>\n<model>\n<end user>"
--   usage:totals           hash   owner -> totals of all days, for metrics; '' sums the owners beyond MAX_OWNERS
--
-- Usage is numbers in one text: prompt, cached, completion and embedding tokens, milliseconds of a GPU, pages, bytes,
-- milliseconds of lost attempts. Totals are the
-- number of jobs followed by the same. The end user of a row is empty, '=' and the name, or '*' for those beyond MAX_USERS; the field
-- "@<end user>" remembers one, and '#' is their number.

local DAY_MS = 24 * 3600 * 1000

local function numbers_in(text)
  local numbers = {}
  for number in string.gmatch(text or '', '%d+') do numbers[#numbers + 1] = tonumber(number) end
  return numbers
end

local merge_usage, add_lost_time, write_usage, utc_date

do
  -- End users of an owner with their own rows on one day, and owners with their own metrics.
  local MAX_USERS, MAX_OWNERS = 1000, 100
  local DEFAULT_DAYS = 400
  -- What adds up over the attempts of a job: embedding tokens, GPU time and lost time. The rest counts once, because an attempt repeats
  -- or continues the previous one.
  local LOST_MS = 8
  -- Lua writes larger numbers as 1e+14.
  local LARGEST_PLAIN = 1e14
  local ADDS_UP = { [4] = true, [5] = true, [LOST_MS] = true }

  local function as_text(numbers)
    if math.max(0, unpack(numbers)) < LARGEST_PLAIN then return table.concat(numbers, ' ') end
    local texts = {}
    for i, number in ipairs(numbers) do texts[i] = digits(number) end
    return table.concat(texts, ' ')
  end

  -- The usage of a job after one more attempt.
  merge_usage = function(earlier, usage)
    if not is_set(earlier) then return usage end
    if not is_set(usage) then return earlier end
    local before, merged = numbers_in(earlier), numbers_in(usage)
    for i, number in ipairs(before) do
      merged[i] = ADDS_UP[i] and number + (merged[i] or 0) or math.max(number, merged[i] or 0)
    end
    return as_text(merged)
  end

  -- The usage of a job after an attempt was lost that ran for this long.
  add_lost_time = function(earlier, milliseconds)
    local numbers = numbers_in(earlier)
    for i = 1, LOST_MS do numbers[i] = numbers[i] or 0 end
    numbers[LOST_MS] = numbers[LOST_MS] + math.max(0, milliseconds)
    return as_text(numbers)
  end

  -- Year, month and day of the current time, from the days since 1970-01-01.
  utc_date = function()
    local days = math.floor(now / DAY_MS) + 719468
    local era = math.floor(days / 146097)
    local day_of_era = days - era * 146097
    local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
      - math.floor(day_of_era / 146096)) / 365)
    local day_of_year = day_of_era - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
    local shifted = math.floor((5 * day_of_year + 2) / 153)
    local day = day_of_year - math.floor((153 * shifted + 2) / 5) + 1
    local month = shifted < 10 and shifted + 3 or shifted - 9
    return string.format('%04d-%02d-%02d', year_of_era + era * 400 + (month <= 2 and 1 or 0), month, day)
  end

  -- Add a job to the totals in a field.
  local function add_to_totals(key, field, before, usage)
    local totals = numbers_in(before)
    totals[1] = (totals[1] or 0) + 1
    for i, number in ipairs(usage) do totals[i + 1] = (totals[i + 1] or 0) + number end
    redis.call('HSET', key, field, as_text(totals))
  end

  -- The end user of a new row: at most MAX_USERS have their own rows.
  local function user_of_row(key, end_user)
    if not is_set(end_user) then return '' end
    if redis.call('HEXISTS', key, '@' .. end_user) == 0 then
      if tonumber(redis.call('HGET', key, '#') or 0) >= MAX_USERS then return '*' end
      redis.call('HSET', key, '@' .. end_user, '')
      redis.call('HINCRBY', key, '#', 1)
    end
    return '=' .. end_user
  end

  -- Write the end of a job into the ledger, once. Returns the tokens that it has used.
  write_usage = function(owner, kind, model, end_user, usage, kept_days)
    local day, numbers = utc_date(), numbers_in(usage)
    local key, prefix = PREFIX .. 'usage:' .. day .. ':' .. owner, kind .. '\n' .. (model or '') .. '\n'
    local row = prefix .. (is_set(end_user) and '=' .. end_user or '')
    local before = redis.call('HGET', key, row)
    if not before then
      row = prefix .. user_of_row(key, end_user)
      before = redis.call('HGET', key, row)
    end
    add_to_totals(key, row, before, numbers)
    if not before then
      local seconds = (tonumber(kept_days or DEFAULT_DAYS) + 1) * DAY_MS / 1000
      redis.call('EXPIRE', key, seconds)
      redis.call('SADD', PREFIX .. 'usage:' .. day, owner)
      redis.call('EXPIRE', PREFIX .. 'usage:' .. day, seconds)
    end
    local totals = PREFIX .. 'usage:totals'
    local counted = redis.call('HGET', totals, owner)
    if not counted and redis.call('HLEN', totals) >= MAX_OWNERS then
      owner = ''
      counted = redis.call('HGET', totals, owner)
    end
    add_to_totals(totals, owner, counted, numbers)
    return (numbers[1] or 0) + (numbers[3] or 0) + (numbers[4] or 0)
  end
end
