-- Job records and their events.
-- Uses: core
--
-- Keys:
--   job:<id>                 hash    the record, which is small; shared/jobs/models.py lists its fields
--   job:<id>:input           hash    what the job needs to run: spec, and context from an earlier phase. Lists never read it
--   job:<id>:result          string  its result, in JSON. Lists never read it
--   job:<id>:output          string  the tokens behind its deltas, for an attempt that continues them; the worker knows the format
--   job:<id>:events          stream  events for clients; entry ids are <sequence>-0
--   job:<id>:log            list    lines that workers have logged while they ran the job, in JSON
--   job:<id>:successors      set     jobs that wait until this one has ended
--   job:<id>:open            set     of a batch: its jobs that have not ended
--   job:<id>:deliveries      zset    ids of its webhook deliveries, all with score 0
--   jobs:due                 zset    every job that has not ended -> time (ms) at which maintenance must look at it
--   jobs:ended               zset    every job that has ended -> time (ms) at which purge deletes it
--   jobs:dead_letters        zset    jobs that lost too many attempts -> time of their end
--   owner_bytes              hash    owner -> bytes of input and results of the owner's jobs
--   owners                   set     every owner that has ever had a job
--   owner:<owner>:jobs       zset    ids of the owner's jobs, all with score 0, so that they sort by id
--   worker:<w>:jobs          set     jobs that this worker has claimed
--   worker:<w>:owners        hash    owner -> number of those jobs
--   worker:<name>:process    string  the Celery process that has this name
--   claim:<token>            string  "<job id> <attempt>" that was claimed with this token
--   counts                   hash    how often each kind of event has happened, for metrics
--   stats:histograms         hash    times of jobs and deliveries in buckets, for metrics; histogram.lua describes its fields
--   stats:notes              list    numbers not yet added to counts and stats:histograms: lines of hash, field and number
--   stats:samples:<ring>     list    statistics of the last hour or day, "<interval> <JSON>" each, newest first; they expire
--   stats:interval:<ring>    string  the interval of the newest sample
-- Channels: ended (the id of each job that ends), worker:<w> (a job that this worker must stop, its new desired model, or that a
-- job waits for which it may hold a slot back).

local FINAL = { completed = true, failed = true, cancelled = true, expired = true }

local function job_key(id) return PREFIX .. 'job:' .. id end

local function fields(id, ...) return hash_fields(PREFIX .. 'job:' .. id, ...) end

-- The whole record as a table, which takes less time than reading thirty of its forty fields by name.
local function record_of(id) return as_table(redis.call('HGETALL', job_key(id))) end

local function input_key(id) return job_key(id) .. ':input' end

local function result_key(id) return job_key(id) .. ':result' end

local function log_key(id) return job_key(id) .. ':log' end

local function output_key(id) return job_key(id) .. ':output' end

local function add_owner_bytes(owner, bytes)
  if redis.call('HINCRBY', PREFIX .. 'owner_bytes', owner, bytes) <= 0 then redis.call('HDEL', PREFIX .. 'owner_bytes', owner) end
end

-- Count bytes that a job occupies in addition.
local function add_bytes(id, owner, bytes)
  redis.call('HINCRBY', job_key(id), 'bytes', bytes)
  add_owner_bytes(owner, bytes)
end

-- Write the spec or the context of a job.
local function write_input(id, owner, name, value)
  local before = redis.call('HSTRLEN', input_key(id), name)
  redis.call('HSET', input_key(id), name, value)
  add_bytes(id, owner, #value - before)
end

-- Write the result of a job. Returns its size, which the caller adds to the record's bytes.
local function write_result(id, owner, result)
  redis.call('SET', result_key(id), result)
  add_owner_bytes(owner, #result)
  return #result
end

local function drop_input(id, owner)
  local bytes = redis.call('HSTRLEN', input_key(id), 'spec') + redis.call('HSTRLEN', input_key(id), 'context')
  redis.call('DEL', input_key(id))
  add_bytes(id, owner, -bytes)
end

-- The tokens behind the deltas that clients have read, or nil if they are not known: workers of a version that does not continue
-- answers write deltas without them, maybe after those of another.
local function usable_output(id)
  local output = redis.call('GET', output_key(id))
  if not output then return nil end
  local sequence = redis.call('HGET', job_key(id), 'output_seq')
  local later = sequence and redis.call('XRANGE', job_key(id) .. ':events', '(' .. sequence .. '-0', '+', 'COUNT', 200) or nil
  for _, entry in ipairs(later or {}) do
    local kind = as_table(entry[2]).type
    if kind == 'delta' or kind == 'restart' then later = nil end
  end
  if later then return output end
  redis.call('DEL', output_key(id))
  return nil
end

-- The record as a flat list, with the input and earlier output, as a worker needs it. `record` is that list, if the caller has read it.
local function whole_job(id, attempt, record)
  record = record or redis.call('HGETALL', job_key(id))
  for _, part in ipairs(redis.call('HGETALL', input_key(id))) do record[#record + 1] = part end
  local output = tonumber(attempt) > 1 and usable_output(id)
  if output then
    record[#record + 1] = 'output'
    record[#record + 1] = output
  end
  return record
end

-- A function that reads these fields of a job into a table, which its next call overwrites: for scripts that read many jobs.
local function field_reader(...)
  local names, found = { ... }, {}
  return function(id)
    local values = redis.call('HMGET', PREFIX .. 'job:' .. id, unpack(names))
    for i = 1, #names do found[names[i]] = values[i] end
    return found
  end
end

-- Add an event to the stream of a job. `limit` is the job's event_limit.
local function add_event(id, sequence, limit, kind, attempt, data)
  redis.call('XADD', job_key(id) .. ':events', 'MAXLEN', '~', limit or '10000', sequence .. '-0',
    'type', kind, 'attempt', attempt, 'at', timestamp, 'data', data)
end

-- Write an event with the next sequence number of its job.
local function emit(id, kind, attempt, data)
  local key = job_key(id)
  local sequence = redis.call('HINCRBY', key, 'seq', 1)
  add_event(id, sequence, redis.call('HGET', key, 'event_limit'), kind, attempt, data)
end
