-- open batch: write a job that stands for many others.
-- ARGV: now, id, owner, idempotency key or '', fingerprint, seal_ms, then the record's fields and values in pairs
-- Keys: job:<id>, its events and index; idempotency:<owner>:<key>
-- Returns {'created' | 'exists' | 'replayed' | 'conflict', the id of the batch}.
-- Promise: the same id or the same key and fingerprint sent twice make one batch. A batch that its maker does not seal is sealed
-- by the janitor once all its jobs have ended and for seal_ms none has joined or ended, so that it ends whatever becomes of its
-- maker, and not while that still adds to it.

local id, owner = ARGV[2], ARGV[3]
local answer, earlier = seen_before(id, owner, ARGV[4], ARGV[5])
if answer then return { answer, earlier } end
local fields = {}
for i = 7, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', job_key(id), 'id', id, 'owner', owner, 'kind', 'batch', 'status', 'in_progress', 'session', '',
  'created_at', digits(now), 'started_at', digits(now), 'expires_at', digits(now + tonumber(ARGV[6])), 'attempt', 0,
  'lost', 0, 'retries', 0, 'worker', '', 'seq', 0, 'phase', 'running', 'phase_at', digits(now), 'children', 0,
  'queue', '', 'waiting', '', 'sealed', '0', 'seal_ms', ARGV[6], unpack(fields))
redis.call('ZADD', PREFIX .. 'owner:' .. owner .. ':jobs', 0, id)
redis.call('SADD', PREFIX .. 'owners', owner)
redis.call('ZADD', PREFIX .. 'jobs:due', digits(now + tonumber(ARGV[6])), id)
tally('submitted', 'batch')
emit(id, 'started', 0, '{}')
remember(id, owner, ARGV[4], ARGV[5])
return { 'created', id }
