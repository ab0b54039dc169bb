-- Job records and their events.
-- Uses: core
--
-- Keys:
--   job:<id>                 hash    the record; shared/jobs/models.py lists its fields
--   job:<id>:events          stream  events for clients; entry ids are <sequence>-0
--   job:<id>:successors      set     jobs that wait until this one has ended
--   job:<id>:open            set     of a batch: its jobs that have not ended
--   job:<id>:deliveries      zset    ids of its webhook deliveries, all with score 0
--   jobs:due                 zset    every job that has not ended -> time (ms) at which maintenance must look at it
--   jobs:dead_letters        zset    jobs that lost too many attempts -> time of their end
--   owners                   set     every owner that has ever had a job
--   owner:<owner>:jobs       zset    ids of the owner's jobs, all with score 0, so that they sort by id
--   worker:<w>:jobs          set     jobs that this worker has claimed
--   claim:<token>            string  "<job id> <attempt>" that was claimed with this token
--   counts                   hash    how often each kind of event has happened, for metrics
-- Channels: ended (the id of each job that ends), worker:<w> (a job that this worker must stop, or its new desired model).

local FINAL = { completed = true, failed = true, cancelled = true, expired = true }

local function job_key(id) return PREFIX .. 'job:' .. id end

local function fields(id, ...) return hash_fields(PREFIX .. 'job:' .. id, ...) end

-- A function that reads these fields of a job into a table, which its next call overwrites: for scripts that read many jobs.
local function field_reader(...)
  local names, found = { ... }, {}
  return function(id)
    local values = redis.call('HMGET', PREFIX .. 'job:' .. id, unpack(names))
    for i = 1, #names do found[names[i]] = values[i] end
    return found
  end
end

local function emit(id, kind, attempt, data)
  local key = job_key(id)
  local sequence = redis.call('HINCRBY', key, 'seq', 1)
  local limit = redis.call('HGET', key, 'event_limit') or '10000'
  redis.call('XADD', key .. ':events', 'MAXLEN', '~', limit, sequence .. '-0',
    'type', kind, 'attempt', attempt, 'at', timestamp, 'data', data)
end
