-- Constants and helpers of every script.
--
-- Every key has the prefix "eh:". There is one Redis and no Redis Cluster: one script may touch a queue and a job together.
-- shared/jobs/lua/lib/job.lua lists the keys of jobs, document.lua of documents, delivery.lua of webhooks, usage.lua of the usage
-- ledger.

local PREFIX = 'eh:'

-- Tests pass the time in; in production the clock of Redis is used.
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Lua writes large numbers as 1.7e+12; Redis and Python need all digits.
local function digits(number) return string.format('%.0f', number) end

-- The current time as text. Formatting it for every field and event would cost more than writing them.
local timestamp = digits(now)

local function is_set(value) return value and value ~= '' end

local function contains(texts, text)
  for _, other in ipairs(texts) do
    if other == text then return true end
  end
  return false
end

-- Fields of a hash as a table by name; a missing field is false.
local function hash_fields(key, ...)
  local names, values, found = { ... }, redis.call('HMGET', key, ...), {}
  for i = 1, #names do found[names[i]] = values[i] end
  return found
end

-- Write a table of fields into a hash.
local function set_fields(key, values)
  local flat = {}
  for name, value in pairs(values) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  if #flat > 0 then redis.call('HSET', key, unpack(flat)) end
end

-- A flat list of names and values as a table.
local function as_table(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end

-- Member and score with the lowest score of a sorted set; nil when it is empty.
local function lowest(key)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return found[1], found[2]
end

-- Numbers for the metrics are added to fields of the hashes counts and stats:histograms. A transition has a dozen of them, so it notes all
-- with one command, and the notes of many transitions are added together.
local NOTES_KEY = PREFIX .. 'stats:notes'
local MAX_NOTES = 200

-- Add to the hashes what was noted. Workers write notes, and the API adds them up with its own rights, so they reach only these hashes. A note
-- that cannot be added is dropped: it must not stop the transition that adds it up.
local function add_up_notes()
  local sums = { counts = {}, ['stats:histograms'] = {} }
  for _, note in ipairs(redis.call('LRANGE', NOTES_KEY, 0, -1)) do
    for key, field, number in string.gmatch(note, '([^\n]*)\n([^\n]*)\n([^\n]*)\n') do
      local of_key = sums[key]
      if of_key then of_key[field] = (of_key[field] or 0) + (tonumber(number) or 0) end
    end
  end
  redis.call('DEL', NOTES_KEY)
  for key, of_key in pairs(sums) do
    for field, sum in pairs(of_key) do redis.pcall('HINCRBY', PREFIX .. key, field, digits(sum)) end
  end
end

-- Note what `counted` and `observed` have returned.
local function note(...)
  if redis.call('RPUSH', NOTES_KEY, table.concat({ ... })) >= MAX_NOTES then add_up_notes() end
end

-- An event to note, and how often it happened.
local function counted_times(number, ...) return 'counts\n' .. table.concat({ ... }, ' ') .. '\n' .. number .. '\n' end

-- An event to note.
local function counted(...) return counted_times('1', ...) end

-- Note one event by itself.
local function count(...) note(counted(...)) end
